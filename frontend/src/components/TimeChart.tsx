import { useRef } from 'preact/hooks';
import type { LineHandlers, LineSpec } from '../charts/lineSpec';
import { savePicture } from '../download';
import { number } from '../format';
import { Legend } from './Legend';
import { type ChartHandle, LineChartBox } from './LineChartBox';
import { Exports } from './Panel';

interface Props extends LineHandlers {
  title: string;
  /** Of the files that it is saved to. */
  name: string;
  spec: LineSpec;
}

/** A small chart inside a panel, with its own title, legend and export. */
export function TimeChart({ title, name, spec, onZoom, onPick }: Props) {
  const chart = useRef<ChartHandle>(null);
  const data = () => ({
    name,
    header: [spec.xLabel, ...spec.lines.map((line) => line.label)],
    rows: Array.from(spec.x, (x, i) => [x, ...spec.lines.map((line) => line.values[i])]),
  });
  const picture = () => {
    const canvas = chart.current?.canvas();
    if (canvas) savePicture(`${name}.png`, canvas, `${title} · ${name}`, spec.lines);
  };
  return (
    <section class="sub" aria-label={title}>
      <Exports title={title} data={data} picture={picture}>
        <h3>{title}</h3>
      </Exports>
      <Legend x={spec.x} lines={spec.lines} format={number} where={spec.where} pin={pinned(spec)} />
      <LineChartBox spec={spec} height={150} handle={chart} label={title} onZoom={onZoom} onPick={onPick} />
    </section>
  );
}

function pinned({ marks }: LineSpec): number | null {
  return marks.find(({ kind }) => kind === 'pin')?.x ?? null;
}
