import { percent, signed } from '../format';
import type { Part, Segment } from '../models/decomposition';
import { tooltip, trainingOnly, WORDS } from '../words';

/** How the difference between training and inference loss is made up; each part has a pattern of its own. */
export function LossBar({ segments, frozen }: { segments: readonly Segment[]; frozen: boolean }) {
  const label = (part: Part) => (part === 'dropout' ? trainingOnly(frozen) : WORDS[part].label);
  const drawn = segments.filter(({ share }) => share > 0);
  if (!drawn.length) return null;
  const words = drawn.map((s) => `${label(s.part)} ${signed(s.value)} (${percent(s.share)})`).join(', ');
  return (
    <div class="bar" role="img" aria-label={`Difference between training and inference loss: ${words}`}>
      {drawn.map(({ part, value, share }) => (
        <div
          key={part}
          class={`segment ${part} ${value < 0 ? 'negative' : ''}`}
          style={{ flexGrow: share }}
          data-tip={`${percent(share)} of the difference. ${tooltip(part)}`}
        >
          {share > 0.12 && (
            <span>
              {label(part)} {percent(share)}
            </span>
          )}
        </div>
      ))}
    </div>
  );
}
