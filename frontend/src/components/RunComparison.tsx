import { routes } from '../api';
import { count, number, ratio } from '../format';
import { useResources, useView } from '../hooks';
import { runSign } from '../models/findings';
import { runColor } from '../palette';
import { showRun, view } from '../view';
import type { Overview } from '../wire';
import { Icon } from './Icon';
import { Panel } from './Panel';
import { Num, Term } from './Tip';

/** Losses and verdicts of the chosen runs side by side. */
export function RunComparison({ run }: { run: string }) {
  const compare = useView((v) => v.compare);
  const names = compare.length ? [run, ...compare] : [];
  const snapshots = useResources(names.map((name) => routes.overview(name)));
  if (!names.length) return null;
  return (
    <Panel
      title="Runs side by side"
      class="comparison"
      data={() => ({
        name: 'bn-lens-runs',
        header: ['run', 'severity', 'verdict', 'step', 'training', 'batch', 'recalibrated', 'inference'],
        rows: snapshots.flatMap(({ value: v }) =>
          v
            ? [
                [
                  v.run,
                  v.severity,
                  v.verdict,
                  v.last_step,
                  v.losses.training,
                  v.losses.batch,
                  v.losses.recalibrated_now ?? v.losses.recalibrated,
                  v.losses.inference,
                ],
              ]
            : [],
        ),
      })}
      tools={
        <button type="button" class="button small" onClick={() => view.set({ compare: [] })}>
          End comparison
        </button>
      }
    >
      <table>
        <thead>
          <tr>
            <th scope="col">run</th>
            <th scope="col" class="right">
              <Term k="batch" />
            </th>
            <th scope="col" class="right">
              <Term k="recalibrated_now" />
            </th>
            <th scope="col" class="right">
              <Term k="inference" />
            </th>
            <th scope="col" class="right">
              inference / batch
            </th>
            <th scope="col" class="right">
              step
            </th>
          </tr>
        </thead>
        {names.map((name, i) => (
          <RunRows
            key={name}
            name={name}
            color={runColor(i)}
            main={i === 0}
            overview={snapshots[i]?.value ?? null}
            error={snapshots[i]?.error ?? null}
          />
        ))}
      </table>
    </Panel>
  );
}

interface RowProps {
  name: string;
  color: string;
  main: boolean;
  overview: Overview | null;
  error: string | null;
}

/** Numbers on one line, the verdict in full below: side by side in the narrowest page. */
function RunRows({ name, color, main, overview, error }: RowProps) {
  const l = overview?.losses;
  const times = l && l.inference !== null && l.batch ? l.inference / l.batch : null;
  return (
    <tbody>
      <tr>
        <th scope="row">
          <button
            type="button"
            class="run-link"
            disabled={main}
            onClick={() => showRun(name)}
            title={main ? name : `Show ${name}`}
          >
            <i style={{ background: color }} aria-hidden="true" />
            {overview && <Icon sign={runSign(overview)} size={14} />}
            <span>{name}</span>
          </button>
        </th>
        <td class="right">
          <Num k="batch">{number(l?.batch)}</Num>
        </td>
        <td class="right">
          <Num k={l?.recalibrated_now == null ? 'recalibrated' : 'recalibrated_now'}>
            {number(l?.recalibrated_now ?? l?.recalibrated)}
          </Num>
        </td>
        <td class="right">
          <Num k="inference">{number(l?.inference)}</Num>
        </td>
        <td class="right">{ratio(times)}</td>
        <td class="right">{count(overview?.last_step)}</td>
      </tr>
      <tr>
        <td colSpan={6} class="verdict-cell">
          {overview ? overview.verdict : (error ?? 'Loading…')}
        </td>
      </tr>
    </tbody>
  );
}
