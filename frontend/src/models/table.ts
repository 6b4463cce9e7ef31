import type { LayerReport } from '../wire';
import { compilePattern } from './pattern';

export type SortKey =
  | 'order'
  | 'name'
  | 'state'
  | 'momentum'
  | 'distance'
  | 'steps'
  | 'attribution'
  | 'findings';

export interface Sort {
  key: SortKey;
  descending: boolean;
}

/** A regular expression over names, ignoring case; what is not one is searched for as plain text. */
export function nameFilter(pattern: string): { test: (name: string) => boolean; valid: boolean } {
  try {
    return { test: compilePattern(pattern), valid: true };
  } catch {
    const text = pattern.toLowerCase();
    return { test: (name) => name.toLowerCase().includes(text), valid: false };
  }
}

/** Folders that all names share, with the slash; nothing for a single name. */
export function sharedFolders(names: readonly string[]): string {
  if (names.length < 2) return '';
  const [first] = names;
  let length = first.length;
  for (const name of names) {
    let same = 0;
    while (same < length && name[same] === first[same]) same++;
    length = same;
  }
  return first.slice(0, first.lastIndexOf('/', length - 1) + 1);
}

/** Order of execution where it is known, else position in the record. */
export function depth(layer: LayerReport): number {
  return layer.order >= 0 ? layer.order : layer.index;
}

/** A layer's state in words. */
export function stateName(state: string): string {
  return state.replace('_', ' ');
}

export function stepsValue(value: number | 'never' | null): number {
  if (value === null) return -1;
  return value === 'never' ? Number.POSITIVE_INFINITY : value;
}

const VALUE: Record<SortKey, (layer: LayerReport) => number | string> = {
  order: depth,
  name: (layer) => layer.name,
  state: (layer) => layer.state,
  momentum: (layer) => layer.momentum,
  distance: (layer) => layer.distance ?? -1,
  steps: (layer) => stepsValue(layer.steps_to_converge),
  attribution: (layer) => layer.attribution ?? Number.NEGATIVE_INFINITY,
  findings: (layer) => layer.findings.length,
};

export function sortLayers(layers: readonly LayerReport[], { key, descending }: Sort): LayerReport[] {
  const value = VALUE[key];
  const sign = descending ? -1 : 1;
  return layers.slice().sort((a, b) => {
    const x = value(a);
    const y = value(b);
    if (x === y) return depth(a) - depth(b);
    return x < y ? -sign : sign;
  });
}

export interface Window {
  first: number;
  end: number;
}

/** The rows to draw for a scroll position, with a few beyond either edge. */
export function visibleRows(total: number, scroll: number, height: number, row: number): Window {
  const beyond = 8;
  const first = Math.max(0, Math.min(Math.floor(scroll / row) - beyond, total));
  return { first, end: Math.min(total, Math.ceil((scroll + height) / row) + beyond) };
}
