import { number, plural, steps } from '../format';
import { largest } from '../models/blocks';
import { counts } from '../models/findings';
import { type SortKey, stepsValue } from '../models/table';
import type { Finding, LayerReport } from '../wire';
import { Icon } from './Icon';
import { LayerName } from './LayerName';

interface Props {
  block: string;
  layers: readonly LayerReport[];
  folded: boolean;
  top: number;
  place: number;
  findings: readonly Finding[];
  shared: string;
  shown: ReadonlySet<SortKey>;
  onToggle: () => void;
}

/** The head of a block of layers, with the worst of each figure while its layers are folded. */
export function BlockRow({ block, layers, folded, top, place, findings, shared, shown, onToggle }: Props) {
  const named = new Set(layers.flatMap((layer) => layer.findings));
  const own = findings.filter((f) => named.has(f.rule) && counts(f));
  const slowest = largest(
    layers.map((l) => (l.steps_to_converge === null ? null : stepsValue(l.steps_to_converge))),
  );
  return (
    <div class="grid-row block" role="row" aria-rowindex={place} style={{ top: `${top}px` }}>
      <div role="gridcell" class="cell order" />
      <div role="gridcell" class="cell name">
        <button type="button" class="fold-block" aria-expanded={!folded} onClick={onToggle}>
          <i class={folded ? '' : 'open'} aria-hidden="true" />
          <LayerName name={block} shared={shared} />
          <span class="muted"> {plural(layers.length, 'layer')}</span>
        </button>
      </div>
      {shown.has('state') && <div role="gridcell" class="cell what" />}
      <div role="gridcell" class="cell distance right" data-tip="The largest distance in the block.">
        <span>{folded ? number(largest(layers.map((l) => l.distance))) : ''}</span>
      </div>
      <div role="gridcell" class="cell steps right" data-tip="The slowest layer of the block.">
        {folded ? steps(slowest) : ''}
      </div>
      {shown.has('attribution') && (
        <div role="gridcell" class="cell attribution right" data-tip="The largest loss of one layer alone.">
          {folded ? number(largest(layers.map((l) => l.attribution))) : ''}
        </div>
      )}
      <div role="gridcell" class="cell findings">
        {folded &&
          own.map((finding) => (
            <span key={finding.rule} data-tip={finding.title}>
              <Icon sign={finding.severity} size={14} />
            </span>
          ))}
      </div>
    </div>
  );
}
