import type { LayerReport, Overview } from '../wire';
import { matched } from './matching';
import { stateName } from './table';

/** A layer in several runs, in their order; null where a run has no such layer. */
export interface ComparedLayer {
  /** In the first run that has it. */
  name: string;
  layers: (LayerReport | null)[];
  /** Greatest less least distance of the runs, standard deviations; null where fewer than two are known. */
  difference: number | null;
}

/** The layers of several runs, matched with those of the first, the largest difference of their distances first. */
export function compareLayers(runs: readonly (readonly LayerReport[])[]): ComparedLayer[] {
  const first = (runs[0] ?? []).map(({ name }) => name);
  const rows = new Map<string, (LayerReport | null)[]>();
  runs.forEach((layers, i) => {
    const same = matched(
      first,
      layers.map(({ name }) => name),
    );
    for (const layer of layers) {
      // A layer that the first run has not may bear the name of another one there.
      const key = same.get(layer.name) ?? `not in the first: ${layer.name}`;
      const row = rows.get(key) ?? runs.map(() => null);
      row[i] = layer;
      rows.set(key, row);
    }
  });
  const compared = [...rows.values()].map((layers): ComparedLayer => {
    const distances = layers.flatMap((layer) => (layer?.distance == null ? [] : [layer.distance]));
    const difference = distances.length < 2 ? null : Math.max(...distances) - Math.min(...distances);
    return { name: layers.find((layer) => layer !== null)?.name ?? '', layers, difference };
  });
  // A stable sort: of equal differences the order of the network stays.
  return compared.sort((a, b) => (b.difference ?? -1) - (a.difference ?? -1));
}

/** What one layer does differently in the runs, besides its distance: momentum and state, each only where it differs. */
export function otherSettings({ layers }: ComparedLayer): { momentum: boolean; state: boolean } {
  const there = layers.filter((layer) => layer !== null);
  return {
    momentum: new Set(there.map(({ momentum }) => momentum)).size > 1,
    state: new Set(there.map(({ state }) => stateName(state))).size > 1,
  };
}

/** The metrics that any of the runs was measured in, in the order of the first that has them. */
export function metricNames(runs: readonly (Overview | null)[]): string[] {
  return [...new Set(runs.flatMap((run) => Object.keys(run?.losses.metrics ?? {})))];
}
