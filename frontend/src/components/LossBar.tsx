import { percent, signed } from '../format';
import type { Segment } from '../models/decomposition';
import { tooltip, WORDS } from '../words';

/** How the difference between training and inference loss is made up; each part has a pattern of its own. */
export function LossBar({ segments }: { segments: readonly Segment[] }) {
  const drawn = segments.filter(({ share }) => share > 0);
  if (!drawn.length) return null;
  const words = drawn
    .map((s) => `${WORDS[s.part].label} ${signed(s.value)} (${percent(s.share)})`)
    .join(', ');
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
              {WORDS[part].label} {percent(share)}
            </span>
          )}
        </div>
      ))}
    </div>
  );
}
