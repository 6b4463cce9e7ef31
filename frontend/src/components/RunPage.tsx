import { useMemo } from 'preact/hooks';
import { routes } from '../api';
import { useResource, useSettled, useView, useWanted } from '../hooks';
import { isMoment } from '../models/end';
import { updates } from '../models/momentum';
import type { LayerReport, Overview } from '../wire';
import { Began } from './Began';
import { EventList } from './EventList';
import { FindingCards } from './FindingCards';
import { HeatPanel } from './HeatPanel';
import { LayerDetail } from './LayerDetail';
import { LayerTable } from './LayerTable';
import { LossPanel } from './LossPanel';
import { MomentumPanel } from './MomentumPanel';
import { Notes } from './Notes';
import { RunComparison } from './RunComparison';
import { Failed, Loading, Stale } from './States';
import { Verdict } from './Verdict';

const SETTLE_MS = 90;
/** Layers whose table is much lower than the detail of one, which then stands below it in two columns. */
const FEW = 16;

export function RunPage({ run }: { run: string }) {
  const overview = useResource(useMemo(() => routes.overview(run), [run]));
  // The data of the first charts loads beside the analysis, not after it.
  const row = useView((v) => v.row);
  useWanted(useMemo(() => routes.series(run, row), [run, row]));
  useWanted(useMemo(() => routes.losses(run), [run]));
  const chosen = useView((v) => v.layer);
  const settled = useSettled(chosen, SETTLE_MS);
  const value = overview.value;
  if (!value) return overview.error ? <Failed read={overview} /> : <Loading what={`run “${run}”`} />;
  const layer = layerAt(value, chosen);
  // A chart that is empty takes no room: an import and a model without a loss are never probed.
  const unprobed = value.losses.step === null && (!value.probes || 'losses' in value.losses.not_evaluated);
  const moment = isMoment(value);
  // Nor does a momentum that moves nothing.
  const moves = value.layers.some(updates);
  const detail = layerAt(value, settled) ?? layer;
  return (
    <>
      {overview.error && <Stale read={overview} />}
      <Verdict overview={value} />
      <RunComparison run={run} />
      {/* Before the first record there is nothing that a finding or a chart could say. */}
      {value.last_step !== null ? <FindingCards overview={value} /> : <Began overview={value} />}
      {value.last_step !== null && layer && (
        <>
          {unprobed || moment ? (
            <>
              {moves && <MomentumPanel overview={value} />}
              <EventList events={value.events} />
            </>
          ) : (
            <div class={`row ${moves ? 'charts' : ''}`}>
              <LossPanel overview={value} />
              {moves && <MomentumPanel overview={value} />}
            </div>
          )}
          {!moment && <HeatPanel overview={value} layer={layer.index} />}
          <div class={`row layers ${value.layers.length > FEW ? '' : 'few'}`}>
            <LayerTable overview={value} layer={layer.index} />
            <div class="detail-place">
              <LayerDetail key={detail?.index} overview={value} layer={detail ?? layer} />
            </div>
          </div>
        </>
      )}
      {!layer && !unprobed && <LossPanel overview={value} />}
      <Notes overview={value} />
    </>
  );
}

function layerAt(overview: Overview, index: number | null): LayerReport | null {
  return overview.layers.find((layer) => layer.index === index) ?? firstLayer(overview);
}

/** The layer that is shown first: the one that costs most loss, else the one with the largest distance. */
function firstLayer({ layers, losses }: Overview): LayerReport | null {
  const blame = (attribution: number | null) => attribution ?? losses.batch ?? 0;
  const ranked = layers
    .slice()
    .sort((a, b) => blame(b.attribution) - blame(a.attribution) || (b.distance ?? 0) - (a.distance ?? 0));
  return ranked[0] ?? null;
}
