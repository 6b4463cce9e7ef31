import { useMemo } from 'preact/hooks';
import { intervalText, number, steps } from '../format';
import { counts } from '../models/findings';
import { sparkPath } from '../models/sparkline';
import { depth, type SortKey, stateName } from '../models/table';
import { view } from '../view';
import type { Finding, LayerReport } from '../wire';
import { tooltip } from '../words';
import { Icon } from './Icon';
import { LayerName } from './LayerName';

interface Props {
  layer: LayerReport;
  /** Under the head of a block. */
  inBlock: boolean;
  top: number;
  place: number;
  chosen: boolean;
  /** Whether the chosen finding names this layer; null where no finding is chosen. */
  lit: boolean | null;
  findings: readonly Finding[];
  series: ArrayLike<number>;
  stride: number;
  /** Folders that all layers share. */
  shared: string;
  /** Columns of the table. */
  shown: ReadonlySet<SortKey>;
}

const WIDTH = 64;
const HEIGHT = 18;

export function LayerRow(props: Props) {
  const { layer, inBlock, top, place, chosen, lit, findings, series, stride, shared, shown } = props;
  const path = useMemo(
    () => sparkPath(series, stride, layer.index, WIDTH, HEIGHT),
    [series, stride, layer.index],
  );
  const own = findings.filter((f) => layer.findings.includes(f.rule) && counts(f));
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the grid around it takes the keys
    <div
      id={`layer-row-${layer.index}`}
      class={`grid-row ${chosen ? 'chosen' : ''} ${lit === true ? 'lit' : ''} ${lit === false ? 'dim' : ''}`}
      role="row"
      tabIndex={-1}
      aria-rowindex={place}
      aria-selected={chosen}
      style={{ top: `${top}px` }}
      onClick={() => view.set({ layer: layer.index })}
    >
      <div role="gridcell" class="cell order">
        {depth(layer)}
      </div>
      <div role="gridcell" class={`cell name ${inBlock ? 'in-block' : ''}`}>
        <LayerName name={layer.name} shared={shared} />
      </div>
      {shown.has('state') && (
        <div role="gridcell" class={`cell what ${layer.state}`}>
          {stateName(layer.state)}
        </div>
      )}
      <div role="gridcell" class="cell distance right" data-tip={tooltip('distance')}>
        <svg width={WIDTH} height={HEIGHT} aria-hidden="true">
          <path d={path} />
        </svg>
        <span>{number(layer.distance)}</span>
      </div>
      <div
        role="gridcell"
        class="cell steps right"
        data-tip={`${tooltip('steps')} ${intervalText(layer.steps_interval)} ${layer.steps_reason}`}
      >
        {steps(layer.steps_to_converge)}
      </div>
      {shown.has('attribution') && (
        <div role="gridcell" class="cell attribution right" data-tip={tooltip('attribution')}>
          {number(layer.attribution)}
        </div>
      )}
      <div role="gridcell" class="cell findings">
        {own.map((finding) => (
          <span key={finding.rule} data-tip={finding.title}>
            <Icon sign={finding.severity} size={14} />
          </span>
        ))}
      </div>
    </div>
  );
}
