import { useState } from 'preact/hooks';
import { routes } from '../api';
import { momentum as beta, count, momentumRange, number } from '../format';
import { useResources, useView } from '../hooks';
import { compareLayers, metricNames, otherSettings } from '../models/comparison';
import { counting, runSign } from '../models/findings';
import { lossOf, metricValue, origin } from '../models/losses';
import { stateName } from '../models/table';
import { runColor } from '../palette';
import { showRun, view } from '../view';
import type { LayerReport, Overview } from '../wire';
import { Icon } from './Icon';
import { LayerName } from './LayerName';
import { Middle } from './Middle';
import { Panel } from './Panel';
import { Num, Term } from './Tip';

/** Layers that are listed at first. */
const FEW = 8;

/** Losses, metrics, causes and layers of the chosen runs side by side. */
export function RunComparison({ run }: { run: string }) {
  const compare = useView((v) => v.compare);
  const names = compare.length ? [run, ...compare] : [];
  const snapshots = useResources(names.map((name) => routes.overview(name)));
  if (!names.length) return null;
  const runs = names.map((name, i) => ({
    name,
    color: runColor(i),
    overview: snapshots[i]?.value ?? null,
    error: snapshots[i]?.error ?? null,
  }));
  const metrics = metricNames(runs.map(({ overview }) => overview));
  return (
    <Panel
      title="Runs side by side"
      class="comparison"
      hint="Each run is measured on its own training batches, so small differences may come from them."
      data={() => data(runs, metrics)}
      tools={
        <button type="button" class="button small" onClick={() => view.set({ compare: [] })}>
          End comparison
        </button>
      }
    >
      <div class="runs-scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">run</th>
              <th scope="col" class="right">
                <Term k="batch" />
              </th>
              <th scope="col" class="right minor">
                <Term k="recalibrated_now" />
              </th>
              <th scope="col" class="right">
                <Term k="inference" />
              </th>
              <th scope="col" class="right">
                <Term k="harm" />
              </th>
              {metrics.map((name) => (
                <th
                  scope="col"
                  class="right"
                  key={name}
                  title={`${name}: with batch statistics, at inference`}
                >
                  {name}
                </th>
              ))}
              <th scope="col" class="right minor">
                momentum
              </th>
              <th scope="col" class="right">
                step
              </th>
            </tr>
          </thead>
          {runs.map((compared, i) => (
            <RunRows key={compared.name} {...compared} metrics={metrics} main={i === 0} />
          ))}
        </table>
      </div>
      <Layers runs={runs} />
    </Panel>
  );
}

interface Compared {
  name: string;
  color: string;
  overview: Overview | null;
  error: string | null;
}

/** Numbers on one line, the cause and the verdict in full below: side by side in the narrowest page. */
function RunRows({
  name,
  color,
  main,
  overview,
  error,
  metrics,
}: Compared & { main: boolean; metrics: readonly string[] }) {
  const l = overview?.losses;
  const causes = overview ? counting(overview.findings).map(({ title }) => title) : [];
  const source = l ? origin(l) : undefined;
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
            <span>
              <Middle text={name} />
            </span>
          </button>
        </th>
        <td class="right" title={source}>
          <Num k="batch">{number(l?.batch)}</Num>
        </td>
        <td class="right minor" title={source}>
          <Num k={l?.recalibrated_now == null ? 'recalibrated' : 'recalibrated_now'}>
            {number(l && lossOf(l, 'recalibrated'))}
          </Num>
        </td>
        <td class="right" title={source}>
          <Num k="inference">{number(l?.inference)}</Num>
        </td>
        <td class="right">
          <Num k="harm">{number(l?.harm)}</Num>
        </td>
        {metrics.map((metric) => (
          <td class="right" key={metric} title={source}>
            <span class="unit">{metricValue(metric, l?.metrics[metric]?.batch)} → </span>
            {metricValue(metric, l?.metrics[metric]?.inference)}
          </td>
        ))}
        <td class="right minor">{momentumOf(overview)}</td>
        <td class="right">{count(overview?.last_step)}</td>
      </tr>
      <tr>
        <td colSpan={7 + metrics.length} class="verdict-cell">
          {causes.length > 0 && <b>{causes.join(', ')}. </b>}
          <span>{overview ? overview.verdict : (error ?? 'Loading…')}</span>
          {source && <span class="source"> Measured on {source}.</span>}
        </td>
      </tr>
    </tbody>
  );
}

/** Each layer's distance in all runs, and what else it does differently. */
function Layers({ runs }: { runs: readonly Compared[] }) {
  const [all, setAll] = useState(false);
  const compared = compareLayers(runs.map(({ overview }) => overview?.layers ?? []));
  if (!compared.length) return null;
  const widest = Math.max(...compared.flatMap(({ layers }) => layers.map((layer) => layer?.distance ?? 0)));
  return (
    <section class="sub" aria-label="Layers side by side">
      <h3>
        Layers <span class="muted">distance of the moving statistics in sd, largest difference first</span>
      </h3>
      <div class="runs-scroll">
        <table class="layers-compared">
          <thead>
            <tr>
              <th scope="col">layer</th>
              {runs.map(({ name, color }) => (
                <th scope="col" key={name} title={name}>
                  <i class="run-color" style={{ background: color }} aria-hidden="true" />
                  <span class="run-short">
                    <Middle text={name} />
                  </span>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {compared.slice(0, all ? undefined : FEW).map((layer) => {
              const other = otherSettings(layer);
              return (
                <tr key={layer.layers.map((one) => one?.name).join()}>
                  <th scope="row">
                    <button
                      type="button"
                      class="run-link"
                      disabled={!layer.layers[0]}
                      onClick={() => view.set({ layer: layer.layers[0]?.index ?? null })}
                    >
                      <LayerName name={layer.name} />
                    </button>
                  </th>
                  {runs.map(({ name, color, overview }, i) => (
                    <LayerCell
                      key={name}
                      framework={overview?.framework ?? 'keras'}
                      name={layer.name}
                      layer={layer.layers[i]}
                      share={(layer.layers[i]?.distance ?? 0) / widest}
                      color={color}
                      {...other}
                    />
                  ))}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {compared.length > FEW && (
        <button type="button" class="button small" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? `The ${FEW} that differ most` : `All ${count(compared.length)} layers`}
        </button>
      )}
    </section>
  );
}

interface CellProps {
  /** Of the row. */
  name: string;
  layer: LayerReport | null;
  share: number;
  color: string;
  momentum: boolean;
  state: boolean;
  framework: string;
}

function LayerCell({ name, layer, share, color, momentum, state, framework }: CellProps) {
  if (!layer) return <td class="muted">not in this run</td>;
  return (
    <td>
      <span class="distance-bar" aria-hidden="true">
        <i style={{ background: color, width: `${Math.round(100 * share)}%` }} />
      </span>
      <Num k="distance">{number(layer.distance)}</Num>
      <span class="unit"> sd</span>
      {momentum && <span class="unit"> · momentum {beta(layer.momentum, framework)}</span>}
      {state && <span class="unit"> · {stateName(layer.state)}</span>}
      {layer.name !== name && <span class="unit"> · {layer.name}</span>}
    </td>
  );
}

function momentumOf(overview: Overview | null): string {
  const values = overview?.layers.map(({ momentum }) => momentum) ?? [];
  if (!overview || !values.length) return '–';
  return momentumRange([Math.min(...values), Math.max(...values)], overview.framework);
}

function data(runs: readonly Compared[], metrics: readonly string[]) {
  return {
    name: 'bn-lens-runs',
    header: [
      ...['run', 'severity', 'verdict', 'step', 'training', 'batch', 'recalibrated', 'inference'],
      ...metrics.flatMap((name) => [`${name}, batch statistics`, `${name}, inference`]),
    ],
    rows: runs.flatMap(({ overview: v }) =>
      v
        ? [
            [
              ...[v.run, v.severity, v.verdict, v.last_step, v.losses.training, v.losses.batch],
              ...[lossOf(v.losses, 'recalibrated'), v.losses.inference],
              ...metrics.flatMap((name) => [
                v.losses.metrics[name]?.batch ?? null,
                v.losses.metrics[name]?.inference ?? null,
              ]),
            ],
          ]
        : [],
    ),
  };
}
