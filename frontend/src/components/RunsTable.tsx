import { useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from 'preact/hooks';
import { plural } from '../format';
import { type RunKey, type RunSort, rowEnd, rowSign, runRow, sortRuns } from '../models/runs';
import { nameFilter } from '../models/table';
import { MOST_COMPARED } from '../palette';
import { AGAIN_MS, summaries } from '../summaries';
import { compareRuns } from '../view';
import type { RunEntry } from '../wire';
import { tooltip } from '../words';
import { Panel } from './Panel';
import { useNow } from './RunEnd';
import { RunsRow } from './RunsRow';

/** `minor`: left out of a narrow page. */
const COLUMNS: { key: RunKey; label: string; tip: string; right?: boolean; minor?: boolean }[] = [
  {
    key: 'severity',
    label: 'Severity',
    tip: 'By harm, where losses were measured; else an estimate from the statistics.',
  },
  { key: 'run', label: 'Run', tip: 'The directory that was given to BNLens.' },
  { key: 'cause', label: 'Cause', tip: 'The most severe finding.' },
  { key: 'batch', label: 'Batch', tip: 'Loss with batch statistics.', right: true, minor: true },
  {
    key: 'inference',
    label: 'Inference',
    tip: 'Loss with the moving statistics, on the same batches and weights.',
    right: true,
  },
  { key: 'harm', label: 'Harm', tip: tooltip('harm'), right: true },
  {
    key: 'metric',
    label: 'Metric',
    tip: 'The first compiled metric: with batch statistics → at inference.',
    right: true,
  },
  {
    key: 'momentum',
    label: 'Momentum',
    tip: 'Momentum of the BatchNorm layers, lowest to highest.',
    right: true,
    minor: true,
  },
  {
    key: 'step',
    label: 'Last step',
    tip: 'Last recorded step, of the planned steps where they are known.',
    right: true,
    minor: true,
  },
  {
    key: 'ended',
    label: 'Ended',
    tip: 'As planned, early, or interrupted; ended where there was no plan; unknown where the records stop and nothing says why; check where a model was judged without training.',
  },
];

/** More than this is filtered, not scrolled through. */
const LISTED = 500;

/** All runs, worst first; a click opens one. */
export function RunsTable({ runs }: { runs: readonly RunEntry[] }) {
  const [, again] = useReducer((n: number) => n + 1, 0);
  const [pattern, setPattern] = useState('');
  const [problems, setProblems] = useState(false);
  const [sort, setSort] = useState<RunSort>({ key: 'severity', descending: true });
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const body = useRef<HTMLTableSectionElement>(null);
  useLayoutEffect(() => summaries.subscribe(() => again(0)), []);

  const now = useNow();
  const filter = useMemo(() => nameFilter(pattern), [pattern]);
  const rows = runs.map((entry) => runRow(entry, summaries.of(entry)));
  const found = sortRuns(
    rows.filter(
      (row) =>
        (filter.test(row.entry.run) || filter.test(row.summary?.cause ?? '')) &&
        (!problems || !row.summary || rowSign(row) !== 'none'),
    ),
    sort,
  );
  const listed = found.slice(0, LISTED);
  // In the order of the table; a run that was deleted is not compared.
  const compared = sortRuns(rows, sort).flatMap(({ entry }) => (chosen.has(entry.run) ? [entry.run] : []));
  const choose = (run: string, add: boolean) => {
    const next = new Set(chosen);
    if (add) next.add(run);
    else next.delete(run);
    setChosen(next);
  };
  const analysed = rows.filter(({ summary }) => summary).length;
  const metric = rows.some(({ summary }) => summary?.metric);
  const columns = COLUMNS.filter(({ key }) => key !== 'metric' || metric);

  // The rows in sight are analysed first.
  const names = listed.map(({ entry }) => `${entry.run} ${entry.last_step}`).join('\n');
  useEffect(() => {
    const order = () => {
      const { top = 0, height = 0 } = body.current?.getBoundingClientRect() ?? {};
      const above = height > 0 ? Math.max(0, Math.floor((-top / height) * listed.length)) : 0;
      const entries = listed.map(({ entry }) => entry);
      // A set keeps the order and drops repeats.
      summaries.want([...new Set([...entries.slice(above), ...entries, ...runs])]);
    };
    order();
    window.addEventListener('scroll', order, { passive: true });
    const timer = window.setInterval(order, AGAIN_MS);
    return () => {
      summaries.stop();
      window.removeEventListener('scroll', order);
      window.clearInterval(timer);
    };
  }, [names, runs]);

  const sortBy = (key: RunKey) =>
    setSort({ key, descending: sort.key === key ? !sort.descending : key !== 'run' && key !== 'cause' });
  return (
    <Panel
      title="Runs"
      class="runs-panel"
      data={() => ({ name: 'bn-lens-runs', header: CSV_HEADER, rows: found.map(csvRow) })}
      tools={
        <>
          <button
            type="button"
            class="button small"
            disabled={compared.length < 2 || compared.length > MOST_COMPARED}
            data-tip={`Losses, causes and layers side by side, of 2 to ${MOST_COMPARED} runs ticked in the table.`}
            onClick={() => compareRuns(compared)}
          >
            {compared.length ? `Compare ${compared.length} runs` : 'Compare runs'}
          </button>
          <label class="inline">
            <input
              type="checkbox"
              checked={problems}
              onChange={(e) => setProblems(e.currentTarget.checked)}
            />
            problems only
          </label>
          <input
            type="search"
            class={`search ${filter.valid ? '' : 'invalid'}`}
            placeholder="Filter by regex"
            aria-label="Filter runs by a regular expression over their names and causes"
            value={pattern}
            onInput={(e) => setPattern(e.currentTarget.value)}
          />
        </>
      }
    >
      <p class="hint" role="status">
        {found.length === runs.length
          ? plural(runs.length, 'run')
          : `${found.length} of ${plural(runs.length, 'run')}`}
        {analysed < runs.length && ` · ${analysed} analysed so far`}
        {!filter.valid && ' · not a supported expression; searching for the text'}
      </p>
      <div class="runs-scroll">
        <table class="runs">
          <thead>
            <tr>
              <td class="choose" />
              {columns.map(({ key, label, tip, right, minor }) => (
                <th
                  key={key}
                  scope="col"
                  class={`${right ? 'right' : ''} ${minor ? 'minor' : ''}`}
                  aria-sort={sort.key === key ? (sort.descending ? 'descending' : 'ascending') : 'none'}
                >
                  <button type="button" data-tip={tip} onClick={() => sortBy(key)}>
                    {label}
                    <span class="sort" aria-hidden="true">
                      {sort.key === key ? (sort.descending ? '▼' : '▲') : ''}
                    </span>
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody ref={body}>
            {listed.map((row) => (
              <RunsRow
                key={row.entry.run}
                row={row}
                metric={metric}
                now={now}
                chosen={chosen.has(row.entry.run)}
                onChoose={(add) => choose(row.entry.run, add)}
              />
            ))}
          </tbody>
        </table>
      </div>
      {found.length > LISTED && (
        <p class="nothing">{plural(found.length - LISTED, 'more run')}: filter to see them.</p>
      )}
      {!found.length && <p class="nothing">No run matches. Clear the filter to see all of them.</p>}
    </Panel>
  );
}

const CSV_HEADER = [
  'run',
  'severity',
  'cause',
  'batch_loss',
  'inference_loss',
  'harm',
  'batches',
  'metric',
  'metric_batch',
  'metric_inference',
  'momentum_low',
  'momentum_high',
  'last_step',
  'planned_steps',
  'ended',
];

function csvRow({ entry, summary }: ReturnType<typeof runRow>) {
  return [
    entry.run,
    summary?.severity,
    summary?.cause,
    summary?.batch,
    summary?.inference,
    summary?.harm,
    summary?.batches,
    summary?.metric?.name,
    summary?.metric?.batch,
    summary?.metric?.inference,
    summary?.momentum[0],
    summary?.momentum[1],
    entry.last_step,
    summary?.planned_steps,
    rowEnd({ summary }, Date.now() / 1000),
  ];
}
