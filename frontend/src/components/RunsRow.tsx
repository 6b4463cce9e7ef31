import { count, momentumRange, number } from '../format';
import { endText } from '../models/end';
import { inBothModes, metricValue, origin } from '../models/losses';
import { type RunRow, rowEnd, rowSign } from '../models/runs';
import { showRun } from '../view';
import type { MetricPair } from '../wire';
import { Icon, signName } from './Icon';
import { LayerName } from './LayerName';

interface Props {
  row: RunRow;
  /** Whether there is a column for one. */
  metric: boolean;
  now: number;
  /** For the comparison. */
  chosen: boolean;
  onChoose: (chosen: boolean) => void;
}

/** One run of the table. The name is what the keyboard reaches; the pointer may click anywhere. */
export function RunsRow({ row, metric, now, chosen, onChoose }: Props) {
  const { entry, summary, error } = row;
  const sign = rowSign(row);
  const end = rowEnd(row, now);
  const source = summary ? origin(summary) : undefined;
  return (
    <tr onClick={(e) => (e.target as Element).closest('.choose') || showRun(entry.run)}>
      <td class="choose">
        <label>
          <input
            type="checkbox"
            aria-label={`Compare ${entry.run}`}
            checked={chosen}
            onChange={(e) => onChoose(e.currentTarget.checked)}
          />
        </label>
      </td>
      <td class="sign">
        {sign && <Icon sign={sign} size={15} />} {sign && <span>{signName(sign)}</span>}
      </td>
      <th scope="row" class="name">
        <button
          type="button"
          class="run-link"
          title={entry.run}
          aria-label={entry.run}
          onClick={() => showRun(entry.run)}
        >
          <LayerName name={entry.run} />
        </button>
      </th>
      <td
        class={`cause ${summary ? '' : 'muted'}`}
        title={error ?? (summary ? `${cause(row)}. ${summary.headline}` : undefined)}
      >
        <span>{error ?? (summary ? cause(row) : 'analysing…')}</span>
      </td>
      <td class="right minor" title={source}>
        {number(summary?.batch)}
      </td>
      <td class="right strong" title={source}>
        {number(summary?.inference)}
      </td>
      <td
        class={`right ${summary?.harm_is_sure ? '' : 'muted'}`}
        title={summary?.harm && !summary.harm_is_sure ? 'May be chance.' : undefined}
      >
        {number(summary?.harm)}
      </td>
      {metric && <MetricCell metric={summary?.metric ?? null} />}
      <td class="right minor">{summary ? momentumRange(summary.momentum, summary.framework) : '–'}</td>
      <td class="right minor">
        {count(entry.last_step)}
        {summary?.planned_steps && summary.planned_steps !== entry.last_step ? (
          <span class="unit"> / {count(summary.planned_steps)}</span>
        ) : null}
      </td>
      <td class={`end ${end ?? ''}`} title={summary ? endText(summary, now) : undefined}>
        {end}
      </td>
    </tr>
  );
}

function MetricCell({ metric }: { metric: MetricPair | null }) {
  if (!metric) return <td class="right">–</td>;
  const { name, batch, inference } = metric;
  return (
    <td
      class="right"
      title={`${name}: ${inBothModes(name, { batch, inference }) ?? 'not measured in both modes'}`}
    >
      <span class="unit">{name} </span>
      {metricValue(name, batch)} → <b>{metricValue(name, inference)}</b>
    </td>
  );
}

function cause(row: RunRow): string {
  const { summary } = row;
  if (summary?.cause) return summary.causes > 1 ? `${summary.cause} (+${summary.causes - 1})` : summary.cause;
  if (summary?.silenced) return `${count(summary.silenced)} silenced`;
  if (rowSign(row) === 'not_evaluated')
    return summary?.last_step === null
      ? summary.layers
        ? 'Nothing is recorded yet'
        : 'Nothing can be read'
      : summary?.layers
        ? 'Losses were not measured'
        : 'No BatchNorm layers';
  return 'No BatchNorm problem found';
}
