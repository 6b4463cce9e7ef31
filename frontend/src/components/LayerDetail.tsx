import { useMemo } from 'preact/hooks';
import { interval, intervalText, momentum, number, steps } from '../format';
import { useView } from '../hooks';
import { isMoment } from '../models/end';
import { counts } from '../models/findings';
import { distanceOrigin } from '../models/losses';
import { layerAt, updates } from '../models/momentum';
import { depth, stateName } from '../models/table';
import { toggleFinding, view } from '../view';
import type { LayerReport, Overview } from '../wire';
import { ChannelView } from './ChannelView';
import { Icon } from './Icon';
import { LayerCharts } from './LayerCharts';
import { MomentumSlider, WhatIf } from './MomentumSlider';
import { Exports, Panel } from './Panel';
import { ReplayedDistance } from './ReplayedDistance';
import { Num, Term } from './Tip';

export function LayerDetail({ overview, layer }: { overview: Overview; layer: LayerReport }) {
  const chosen = useView((v) => v.momentum);
  const usual = layer.momentum_effective ?? layer.momentum;
  const current = chosen ?? usual;
  const order = useMemo(() => overview.layers.slice().sort((a, b) => depth(a) - depth(b)), [overview.layers]);
  const at = order.findIndex(({ index }) => index === layer.index);
  const go = (by: number) => order[at + by] && view.set({ layer: order[at + by].index });
  const findings = overview.findings.filter((f) => counts(f) && layer.findings.includes(f.rule));
  return (
    <Panel
      title={layer.name}
      class="detail-panel"
      tools={
        <div class="pager">
          <button
            type="button"
            class="button small"
            disabled={at <= 0}
            onClick={() => go(-1)}
            aria-label="Previous layer"
          >
            ‹
          </button>
          <span class="muted">
            {at + 1} of {order.length}
          </span>
          <button
            type="button"
            class="button small"
            disabled={at >= order.length - 1}
            onClick={() => go(1)}
            aria-label="Next layer"
          >
            ›
          </button>
        </div>
      }
    >
      <Facts layer={layer} origin={distanceOrigin(overview)} framework={overview.framework} />
      {findings.length > 0 && (
        <ul class="chips">
          {findings.map((f) => (
            <li key={f.rule}>
              <button type="button" class="chip" onClick={() => toggleFinding(f.rule)}>
                <Icon sign={f.severity} size={13} />
                {f.title}
              </button>
            </li>
          ))}
        </ul>
      )}
      <div class="detail-parts">
        {!isMoment(overview) && <LayerCharts overview={overview} layer={layer} />}
        <ChannelView overview={overview} layer={layer} />
        <section class="sub" aria-label="Momentum of this layer">
          <Exports
            title="Momentum of this layer"
            data={() => ({
              name: `${overview.run}-${layer.name}-replayed`,
              header: ['momentum', 'distance_sd'],
              rows: layer.replayed.map((r) => [r.momentum, r.distance]),
            })}
          >
            <h3>Momentum of this layer</h3>
          </Exports>
          {updates(layer) ? (
            <>
              <MomentumSlider
                value={current}
                usual={usual}
                framework={overview.framework}
                replays={overview.losses.replayed}
              />
              <WhatIf {...layerAt(layer, overview.tolerance, current)} />
              <ReplayedDistance
                run={overview.run}
                layer={layer}
                current={current}
                usual={usual}
                framework={overview.framework}
              />
            </>
          ) : (
            <p class="hint">
              This layer is {stateName(layer.state)}: its statistics do not change, so the momentum has no
              effect.
            </p>
          )}
        </section>
      </div>
    </Panel>
  );
}

interface FactsProps {
  layer: LayerReport;
  /** What the distance is of. */
  origin: string;
  framework: string;
}

function Facts({ layer, origin, framework }: FactsProps) {
  const { momentum_effective: effective } = layer;
  return (
    <dl class="facts">
      <div>
        <dt>
          <Term k="state" />
        </dt>
        <dd>{stateName(layer.state)}</dd>
      </div>
      <div>
        <dt>
          <Term k="distance" />
        </dt>
        <dd>
          <Num k="distance">{number(layer.distance)}</Num>
          {layer.distance !== null && <span class="unit"> sd, {origin}</span>}
        </dd>
      </div>
      <div>
        <dt>
          <Term k="steps" />
        </dt>
        <dd>
          <Num k="steps" note={`${intervalText(layer.steps_interval)} ${layer.steps_reason}`}>
            {steps(layer.steps_to_converge)}
          </Num>
          {typeof layer.steps_to_converge === 'number' && (
            <span class="unit">
              {interval(layer.steps_interval) && ` (${interval(layer.steps_interval)})`} updates
            </span>
          )}
        </dd>
      </div>
      <div>
        <dt>
          <Term k="steps_worst" />
        </dt>
        <dd>
          <Num k="steps_worst">{steps(layer.steps_to_converge_worst)}</Num>
          <span class="unit">
            {typeof layer.steps_to_converge_worst === 'number' && ' updates'}
            {layer.worst_channel !== null && ` channel ${layer.worst_channel}`}
          </span>
        </dd>
      </div>
      <div>
        <dt>
          <Term k="attribution" />
        </dt>
        <dd>
          <Num k="attribution">{number(layer.attribution)}</Num>
        </dd>
      </div>
      <div>
        <dt>
          <Term k="momentum" />
        </dt>
        <dd>
          <Num k="momentum">{momentum(layer.momentum, framework)}</Num>
          {effective !== null && effective !== layer.momentum && (
            <span class="unit">
              {' '}
              <Num k="momentum_effective">effective {momentum(effective, framework)}</Num>
            </span>
          )}
        </dd>
      </div>
      <div>
        <dt>
          <Term k="drift" />
        </dt>
        <dd>
          <Num k="drift">{number(layer.drift)}</Num>
          {layer.drift !== null && <span class="unit"> sd/step</span>}
        </dd>
      </div>
      <div>
        <dt>
          <Term k="variance_ratio" />
        </dt>
        <dd>
          <Num k="variance_ratio">{number(layer.variance_ratio)}</Num>
          {layer.variance_ratio !== null && <span class="unit"> ×</span>}
        </dd>
      </div>
      <div>
        <dt>
          <Term k="channels" />
        </dt>
        <dd>
          {layer.channels}
          <span class="unit">
            {' '}
            {layer.kind}, ε {number(layer.epsilon)}
          </span>
        </dd>
      </div>
    </dl>
  );
}
