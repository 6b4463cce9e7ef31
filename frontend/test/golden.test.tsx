import { cleanup, render, screen } from '@testing-library/preact';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { FindingCards } from '../src/components/FindingCards';
import { LayerDetail } from '../src/components/LayerDetail';
import { LayerTable } from '../src/components/LayerTable';
import { Verdict } from '../src/components/Verdict';
import type { Overview } from '../src/wire';
import report from './golden/overview.json';
import { finding, layer, overview } from './samples';

// pytest writes this, so what Python sends and what TypeScript expects cannot drift apart.
const runs = (report as unknown as { runs: Overview[] }).runs;

beforeEach(() => {
  vi.stubGlobal('fetch', () => new Promise(() => {}));
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

it.each(runs)('$run has every field that the tab reads', (golden) => {
  const missing = (sample: object, value: object) => Object.keys(sample).filter((key) => !(key in value));
  expect(missing(overview(), golden)).toEqual([]);
  expect(missing(overview().losses, golden.losses)).toEqual([]);
  for (const each of golden.findings) expect(missing(finding({}), each)).toEqual([]);
  for (const each of golden.layers) expect(missing(layer({}), each)).toEqual([]);
});

it.each(runs)('$run is shown', (golden) => {
  render(
    <>
      <Verdict overview={golden} />
      <FindingCards overview={golden} />
      <LayerTable overview={golden} layer={golden.layers[0]?.index ?? null} />
      {golden.layers[0] && <LayerDetail overview={golden} layer={golden.layers[0]} />}
    </>,
  );
  expect(screen.getByRole('heading', { level: 1 }).textContent).toBe(golden.verdict);
  for (const { name: title } of golden.layers.slice(0, 3))
    expect(screen.getAllByTitle(title).length).toBeGreaterThan(0);
});
