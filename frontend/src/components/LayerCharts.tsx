import { useMemo } from 'preact/hooks';
import { routes } from '../api';
import type { LineSpec } from '../charts/lineSpec';
import { number } from '../format';
import { useResource } from '../hooks';
import { distanceChart, type LayerChart, meanChart, varianceChart } from '../models/layerCharts';
import { useTimeline } from '../timeline';
import type { LayerReport, Overview } from '../wire';
import { TimeChart } from './TimeChart';

/** One layer over the run: batch against moving mean and variance, and the distance that they make. */
export function LayerCharts({ overview, layer }: { overview: Overview; layer: LayerReport }) {
  const { run } = overview;
  const { value: frame, error } = useResource(
    useMemo(() => routes.layer(run, layer.index), [run, layer.index]),
  );
  const time = useTimeline(overview, frame, layer.index);
  const specs = useMemo(() => {
    if (!frame) return null;
    const { clock, axis } = time;
    const spec = (chart: LayerChart, yLabel: string): LineSpec => ({
      ...time.spec,
      x: chart.x,
      lines: chart.lines,
      yLabel: `${yLabel}${chart.scale === 'linear' ? '' : ` (${chart.scale})`}`,
      yScale: chart.scale,
      yFormat: number,
    });
    return [
      { title: 'Mean, rms over channels', spec: spec(meanChart(frame, clock, axis), 'activation') },
      {
        title: 'Variance, geometric mean over channels',
        spec: spec(varianceChart(frame, clock, axis), 'activation²'),
      },
      { title: 'Distance at each record', spec: spec(distanceChart(frame, clock, axis), 'sd') },
    ];
  }, [frame, time]);
  if (!specs)
    return (
      <div class="chart-wait" role="status">
        {error ?? 'Loading the layer…'}
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
          onZoom={time.zoom}
          onPick={time.pick}
        />
      ))}
    </div>
  );
}
