import { percent, signed } from '../format';
import type { Part, Segment } from '../models/decomposition';
import { tooltip } from '../words';

/** The parts of the gap between training and inference loss. Parts that lower the loss lie left of the zero mark. */
export function LossBar({
  segments,
  label,
}: {
  segments: readonly Segment[];
  label: (part: Part) => string;
}) {
  const drawn = segments.filter(({ share }) => share > 0);
  if (!drawn.length) return null;
  const words = drawn.map((s) => `${label(s.part)} ${signed(s.value)} (${percent(s.share)})`).join(', ');
  const side = (negative: boolean) => drawn.filter(({ value }) => value < 0 === negative);
  const [lower, higher] = [side(true), side(false)];
  return (
    <div class="bar" role="img" aria-label={`Parts of the loss gap: ${words}`}>
      {lower.map((segment) => (
        <PartOfBar key={segment.part} segment={segment} label={label(segment.part)} />
      ))}
      {lower.length > 0 && <i class="zero" data-tip="Left of this mark: parts that lower the loss." />}
      {higher.map((segment) => (
        <PartOfBar key={segment.part} segment={segment} label={label(segment.part)} />
      ))}
    </div>
  );
}

function PartOfBar({ segment: { part, value, share }, label }: { segment: Segment; label: string }) {
  return (
    <div
      class={`segment ${part} ${value < 0 ? 'negative' : ''}`}
      style={{ flexGrow: share }}
      data-tip={`${signed(value)}, ${percent(share)} of the parts’ total size. ${tooltip(part)}`}
    >
      {share > 0.12 && (
        <span>
          {label} {signed(value)}
        </span>
      )}
    </div>
  );
}
