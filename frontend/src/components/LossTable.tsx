import { number, plural, signed } from '../format';
import { decompose, isSmall, type Part } from '../models/decomposition';
import { isFresh, lossOf, MODES, type Mode, metricValue, origin } from '../models/losses';
import type { PairedLosses } from '../wire';
import { partLabel, type WordKey } from '../words';
import { LossBar } from './LossBar';
import { Num, Term } from './Tip';

/** What leads from one column to the next; what leads to the training loss stands under it. */
const PART: Partial<Record<Mode, Part>> = { training: 'dropout', recalibrated: 'noise', inference: 'stale' };

interface Props {
  losses: PairedLosses;
  frozen: boolean;
  /** On which data. */
  title: string;
  /** Nothing is wrong, so the parts of the gap are no news. */
  calm: boolean;
}

/** Losses and metrics of the same batches in every mode, and the parts of the gap between them. */
export function LossTable({ losses, frozen, title, calm }: Props) {
  const segments = decompose(losses);
  const missing = Object.keys(losses.not_evaluated).length;
  const metrics = Object.entries(losses.metrics);
  const word = (mode: Mode): WordKey =>
    mode === 'recalibrated' && isFresh(losses) ? 'recalibrated_now' : mode;
  const small = calm || isSmall(losses, segments);
  // A mode that these data are not measured in takes no column.
  const modes = MODES.filter(
    (mode) =>
      losses[mode] !== null ||
      losses.overflowed.includes(mode) ||
      mode in losses.not_evaluated ||
      'losses' in losses.not_evaluated,
  );
  const allFrozen = frozen && !modes.includes('recalibrated');
  return (
    <div class="chain" role="group" aria-label={title}>
      <p class="chain-title">
        {title}: {origin(losses)}
        {missing > 0 && ` · ${plural(missing, 'loss')} not evaluated`}
      </p>
      <div class="modes-scroll">
        <table class="modes">
          <thead>
            <tr>
              <td />
              {modes.map((mode) => (
                <th scope="col" key={mode} class={mode}>
                  <i aria-hidden="true" />
                  <Term k={word(mode)} />
                  {mode === 'recalibrated' && frozen && <span class="unit"> · frozen layers kept</span>}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            <tr class="loss">
              <th scope="row">loss</th>
              {modes.map((mode) => (
                <td key={mode} class={mode}>
                  <LossValue losses={losses} mode={mode} word={word(mode)} />
                </td>
              ))}
            </tr>
            {!small && (
              <tr class="parts">
                <th scope="row">parts of the gap</th>
                {modes.map((mode) => {
                  // Where no other statistics were tried, one part leads from batch statistics to inference.
                  const part = mode === 'inference' && !modes.includes('recalibrated') ? 'noise' : PART[mode];
                  const value = part ? losses[part] : null;
                  return (
                    <td key={mode}>
                      {part && value !== null && value !== 0 && (
                        <Term k={part}>
                          {signed(value)} {partLabel(part, frozen, allFrozen)}
                        </Term>
                      )}
                    </td>
                  );
                })}
              </tr>
            )}
            {metrics.map(([name, values]) => (
              <tr key={name} class="metric">
                <th scope="row" title={name}>
                  {name}
                </th>
                {modes.map((mode) => (
                  <td key={mode} class={mode}>
                    {metricValue(name, values[mode])}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {!small && <LossBar segments={segments} label={(part) => partLabel(part, frozen, allFrozen)} />}
    </div>
  );
}

function LossValue({ losses, mode, word }: { losses: PairedLosses; mode: Mode; word: WordKey }) {
  const value = lossOf(losses, mode);
  const why = losses.not_evaluated[mode] ?? losses.not_evaluated.losses;
  const overflowed = losses.overflowed.includes(mode);
  if (value === null && (why || overflowed))
    return (
      <span class="muted small" data-tip={why ?? 'The measured loss is infinite or not a number.'}>
        {overflowed ? 'not finite' : 'not evaluated'}
      </span>
    );
  return <Num k={word}>{number(value)}</Num>;
}
