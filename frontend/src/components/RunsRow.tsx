import { momentum as beta, count, number, ratio } from '../format';
import { lossRatio, type RunRow, rowSign } from '../models/runs';
import { showRun } from '../view';
import { Icon, signName } from './Icon';

/** One run of the table. The name is what the keyboard reaches; the pointer may click anywhere. */
export function RunsRow({ row, ended }: { row: RunRow; ended: boolean }) {
  const { entry, summary, error } = row;
  const sign = rowSign(row);
  return (
    <tr onClick={() => showRun(entry.run)}>
      <td class="sign">
        {sign && <Icon sign={sign} size={15} />} {sign && <span>{signName(sign)}</span>}
      </td>
      <th scope="row" class="name">
        <button type="button" class="run-link" title={entry.run} onClick={() => showRun(entry.run)}>
          <span>{entry.run}</span>
        </button>
      </th>
      <td class={`cause ${summary ? '' : 'muted'}`} title={error ?? summary?.headline}>
        <span>{error ?? (summary ? cause(row) : 'analysing…')}</span>
      </td>
      <td class="right">{number(summary?.batch)}</td>
      <td class="right strong">{number(summary?.inference)}</td>
      <td class="right">{ratio(lossRatio(row))}</td>
      <td class="right">{momentumRange(summary?.momentum ?? [])}</td>
      <td class="right">
        {count(entry.last_step)}
        {summary?.planned_steps ? <span class="unit"> / {count(summary.planned_steps)}</span> : null}
      </td>
      {ended && <td>{summary?.ended}</td>}
    </tr>
  );
}

function cause(row: RunRow): string {
  const { summary } = row;
  if (summary?.cause) return summary.causes > 1 ? `${summary.cause} (+${summary.causes - 1})` : summary.cause;
  if (summary?.silenced) return `${count(summary.silenced)} silenced`;
  if (rowSign(row) === 'not_evaluated')
    return summary?.layers ? 'Losses were not measured' : 'No BatchNorm layers';
  return 'No BatchNorm problem found';
}

function momentumRange([low, high]: readonly number[]): string {
  if (low === undefined) return '–';
  return low === high ? beta(low) : `${beta(low)} to ${beta(high)}`;
}
