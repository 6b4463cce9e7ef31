import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { geometry, rowAt, toPixel, toPosition } from '../src/charts/heatGeometry';
import type { HeatSpec } from '../src/charts/heatmapPaint';
import { HeatmapView } from '../src/charts/heatmapView';
import { setTheme } from '../src/theme';

it('places rows and positions, and finds them again', () => {
  const at = geometry(1000, 10, 8, [0, 400]);
  expect(toPosition(at, toPixel(at, 123))).toBeCloseTo(123, 9);
  expect(rowAt(at, at.top + 8 * 3 + 1)).toBe(3);
  expect(rowAt(at, at.top - 1)).toBe(-1);
  expect(rowAt(at, at.top + 80)).toBe(-1);
});

it('gives a narrow page less room for names', () => {
  expect(geometry(600, 1, 8, [0, 1]).left).toBeLessThan(geometry(1200, 1, 8, [0, 1]).left);
});

const drawn = vi.fn();

beforeEach(() => {
  drawn.mockClear();
  const context = new Proxy({}, { get: () => drawn, set: () => true });
  vi.spyOn(HTMLCanvasElement.prototype, 'getContext').mockReturnValue(context as never);
});
afterEach(() => {
  vi.restoreAllMocks();
});

const SPEC: HeatSpec = {
  heat: { x: Float64Array.of(0, 1), values: [1, 2], layers: 1 },
  scale: { low: 0.01, high: 1 },
  order: [0],
  names: ['bn'],
  rowHeight: 8,
  range: [0, 1],
  selected: null,
  lit: null,
  shade: null,
  pin: null,
  xFormat: String,
  xLabel: 'step',
  axis: 'step',
};

it('draws nothing in a hidden tab, which has no width', () => {
  const view = new HeatmapView(document.createElement('div'), { onHover() {}, onPick() {}, onZoom() {} });
  view.update(SPEC);
  expect(drawn).not.toHaveBeenCalled();
  view.destroy();
});

it('computes its cells once, however often another layer is chosen, and again for another range', () => {
  const made = vi.fn((width: number, height: number) => ({
    data: new Uint8ClampedArray(4 * width * height),
  }));
  const context = new Proxy(
    {},
    {
      get: (_, name) =>
        name === 'createImageData' ? made : name === 'measureText' ? () => ({ width: 1 }) : drawn,
      set: () => true,
    },
  );
  vi.spyOn(HTMLCanvasElement.prototype, 'getContext').mockReturnValue(context as never);
  const box = document.createElement('div');
  Object.defineProperty(box, 'clientWidth', { value: 400 });
  const view = new HeatmapView(box, { onHover() {}, onPick() {}, onZoom() {} });
  view.update(SPEC);
  view.update({ ...SPEC, selected: 0 });
  view.update({ ...SPEC, lit: new Set([0]) });
  expect(made).toHaveBeenCalledTimes(1);
  view.update({ ...SPEC, range: [0, 0.5] });
  expect(made).toHaveBeenCalledTimes(2);
  setTheme(true);
  expect(made).toHaveBeenCalledTimes(3);
  view.destroy();
  setTheme(false);
});
