import type { Line } from '../charts/lineSpec';
import { useCrosshair } from '../hooks';
import { nearest } from '../models/axis';
import { tooltip, wordOf } from '../words';

interface Props {
  x: Float64Array;
  lines: readonly Line[];
  format: (value: number) => string;
  /** Position in words; named beside the values. */
  where?: (x: number) => string;
  /** Position of the pinned step, whose values are shown while the pointer is elsewhere. */
  pin?: number | null;
  off?: (line: Line) => boolean;
  onToggle?: (id: string) => void;
  /** The values are those of smooth lines. */
  smoothed?: boolean;
}

/** Names of the lines, with each one's value at the crosshair, else at the pin, else its last. */
export function Legend({ x, lines, format, where, pin = null, off: isOff, onToggle, smoothed }: Props) {
  const at = useCrosshair() ?? pin;
  const index = at === null ? x.length - 1 : nearest(x, at);
  const position = at === null || index < 0 ? 'last values' : where?.(x[index]);
  return (
    <ul class="legend">
      {where && (
        <li class="where-at">
          {position}
          {smoothed && ', smoothed'}
        </li>
      )}
      {lines.map((line, i) => {
        if (line.legend === false) return null;
        const off = isOff?.(line) ?? false;
        const value = valueNear(line.values, index);
        const other = line.bandToNext ? valueNear(lines[i + 1].values, index) : null;
        const text =
          value === null || off ? '' : other === null ? format(value) : span(format(other), format(value));
        const content = (
          <>
            <Swatch line={line} />
            <span>{line.label}</span>
            <span class="value">{text}</span>
          </>
        );
        const key = wordOf(line.label);
        const word = key ? tooltip(key) : undefined;
        return (
          <li key={line.id}>
            {onToggle ? (
              <button
                type="button"
                class={off ? 'off' : ''}
                aria-pressed={!off}
                data-tip={word}
                onClick={() => onToggle(line.id)}
              >
                {content}
              </button>
            ) : (
              <span class="entry">{content}</span>
            )}
          </li>
        );
      })}
    </ul>
  );
}

/** What a band covers; nothing where it has no width. */
function span(low: string, high: string): string {
  return low === high ? '' : `${low} to ${high}`;
}

function Swatch({ line }: { line: Line }) {
  if (line.bandToNext) return <i class="band-swatch" aria-hidden="true" />;
  const stroke = line.color.startsWith('#') ? line.color : `var(--${line.color})`;
  return (
    <svg width="22" height="8" aria-hidden="true">
      <line
        x1="0"
        x2="22"
        y1="4"
        y2="4"
        style={{ stroke }}
        stroke-width={line.width}
        stroke-dasharray={line.dash?.join(' ')}
      />
    </svg>
  );
}

/** Lines of several runs have points at different x: the nearest one earlier is what is shown. */
function valueNear(values: readonly (number | null)[], index: number): number | null {
  for (let i = Math.min(index, values.length - 1); i >= 0; i--) {
    if (values[i] !== null && values[i] !== undefined) return values[i];
  }
  return null;
}
