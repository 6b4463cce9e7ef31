import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { geometry, rowAt, toPixel, toPosition } from '../src/charts/heatGeometry';
import { HeatmapView } from '../src/charts/heatmapView';

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

it('draws nothing in a hidden tab, which has no width', () => {
  const view = new HeatmapView(document.createElement('div'), { onHover() {}, onPick() {}, onZoom() {} });
  view.update({
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
  });
  expect(drawn).not.toHaveBeenCalled();
  view.destroy();
});
