import { routes } from '../api';
import { number, ratio } from '../format';
import { useResources, useView } from '../hooks';
import { runColor } from '../palette';
import { showRun, view } from '../view';
import type { Overview } from '../wire';
import { Icon } from './Icon';
import { Panel } from './Panel';
import { Term } from './Tip';

/** Verdicts of the chosen runs side by side. */
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
                  v.losses.recalibrated,
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
      <div class="scroll-x">
        <table>
          <thead>
            <tr>
              <th scope="col">run</th>
              <th scope="col">verdict</th>
              <th scope="col" class="right">
                <Term k="batch" />
              </th>
              <th scope="col" class="right">
                <Term k="recalibrated" />
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
          <tbody>
            {names.map((name, i) => (
              <Row
                key={name}
                name={name}
                color={runColor(i)}
                main={i === 0}
                overview={snapshots[i]?.value ?? null}
                error={snapshots[i]?.error ?? null}
              />
            ))}
          </tbody>
        </table>
      </div>
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

function Row({ name, color, main, overview, error }: RowProps) {
  const l = overview?.losses;
  const times = l && l.inference !== null && l.batch ? l.inference / l.batch : null;
  return (
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
          <span>{name}</span>
        </button>
      </th>
      <td class="verdict-cell">
        {overview ? (
          <>
            <Icon sign={overview.severity} size={14} /> {overview.verdict}
          </>
        ) : (
          (error ?? 'Reading …')
        )}
      </td>
      <td class="right">{number(l?.batch)}</td>
      <td class="right">{number(l?.recalibrated)}</td>
      <td class="right">{number(l?.inference)}</td>
      <td class="right">{ratio(times)}</td>
      <td class="right">{number(overview?.last_step)}</td>
    </tr>
  );
}
