import { useMemo } from 'preact/hooks';
import { routes } from '../api';
import type { LineSpec } from '../charts/lineSpec';
import { number } from '../format';
import { useResource, useRunStart, useView } from '../hooks';
import { AXIS_LABEL } from '../models/axis';
import { distanceChart, type LayerChart, meanChart, varianceChart } from '../models/layerCharts';
import { clockOf } from '../models/lossChart';
import { marks, shadeOf, X_FORMAT } from '../time';
import { view } from '../view';
import type { LayerReport, Overview } from '../wire';
import { TimeChart } from './TimeChart';

/** One layer over the run: batch against moving mean and variance, and the distance that they make. */
export function LayerCharts({ overview, layer }: { overview: Overview; layer: LayerReport }) {
  const { run } = overview;
  const { value: frame, error } = useResource(
    useMemo(() => routes.layer(run, layer.index), [run, layer.index]),
  );
  const axis = useView((v) => v.axis);
  const range = useView((v) => v.range);
  const pin = useView((v) => v.step);
  const rule = useView((v) => v.finding);
  const start = useRunStart(run);
  const clock = useMemo(() => clockOf(frame, start), [frame, start]);
  const specs = useMemo(() => {
    if (!frame) return null;
    const finding = overview.findings.find((f) => f.rule === rule && f.layer_indices.includes(layer.index));
    const spec = (chart: LayerChart, yLabel: string): LineSpec => ({
      x: chart.x,
      lines: chart.lines,
      xTime: axis === 'wall',
      xLabel: AXIS_LABEL[axis],
      xFormat: X_FORMAT[axis],
      yLabel: `${yLabel}${chart.scale === 'linear' ? '' : ` (${chart.scale})`}`,
      yScale: chart.scale,
      yFormat: number,
      range,
      marks: marks(overview, clock, axis, pin),
      shade: shadeOf(finding, overview, clock, axis),
      shared: true,
    });
    return [
      { title: 'Mean, rms over channels', spec: spec(meanChart(frame, clock, axis), 'activation') },
      {
        title: 'Variance, geometric mean over channels',
        spec: spec(varianceChart(frame, clock, axis), 'activation²'),
      },
      { title: 'Distance', spec: spec(distanceChart(frame, clock, axis), 'sd') },
    ];
  }, [frame, clock, overview, layer.index, axis, range, pin, rule]);
  if (!specs)
    return (
      <div class="chart-wait" role="status">
        {error ?? 'Reading the layer …'}
      </div>
    );
  return (
    <div class="layer-charts">
      {specs.map(({ title, spec }) => (
        <TimeChart
          key={title}
          title={title}
          name={`${run}-${layer.name}-${title.split(',')[0].toLowerCase()}`}
          spec={spec}
          onZoom={(zoomed) => view.set({ range: zoomed })}
          onPick={(x) => view.set({ step: Math.max(0, Math.round(clock.step(x, axis))) })}
        />
      ))}
    </div>
  );
}
