import { useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from 'preact/hooks';
import { type Resource, routes, type Snapshot } from './api';
import { crosshair, type Position } from './crosshair';
import { column } from './frame';
import type { View } from './link';
import { onTheme, type Theme, theme } from './theme';
import { view } from './view';

/** A part of the view; the component renders again only when that part changes. */
export function useView<T>(select: (view: View) => T): T {
  const [, again] = useReducer((n: number) => n + 1, 0);
  const value = select(view.get());
  const latest = useRef({ select, value });
  latest.current = { select, value };
  useLayoutEffect(
    () =>
      view.subscribe((next) => {
        if (!Object.is(latest.current.select(next), latest.current.value)) again(0);
      }),
    [],
  );
  return value;
}

const NOTHING: Snapshot<never> = { value: null, error: null, loading: false, at: 0, retryAt: 0 };

/** A route's latest answer; null asks for nothing. Being on the page is what keeps a route polled. */
export function useResource<T>(resource: Resource<T> | null): Snapshot<T> {
  const [, again] = useReducer((n: number) => n + 1, 0);
  const shown = resource?.snapshot ?? NOTHING;
  // Not after the paint: the sooner a route is asked, the sooner it answers.
  useLayoutEffect(() => {
    const stop = resource?.subscribe(() => again(0));
    // An answer can come between the render and this.
    if (resource && resource.snapshot !== shown) again(0);
    return stop;
  }, [resource]);
  return shown;
}

/** Asks for a route that a component further down will show, without rendering again when it comes. */
export function useWanted(resource: Resource<unknown>): void {
  useLayoutEffect(() => resource.subscribe(() => {}), [resource]);
}

/** Wall time of the first record of a run: losses and layers start at their own, and share one relative axis. */
export function useRunStart(run: string): number | undefined {
  const losses = useResource(useMemo(() => routes.losses(run), [run]));
  const series = useResource(useMemo(() => routes.series(run, 'distance_rms'), [run]));
  const first = [losses, series].flatMap(({ value }) => Array.from(column(value, 'wall_times').slice(0, 1)));
  return first.length ? Math.min(...first) : undefined;
}

/** Routes of several runs at once, in the same order. */
export function useResources<T>(resources: readonly Resource<T>[]): Snapshot<T>[] {
  const [, again] = useReducer((n: number) => n + 1, 0);
  const key = resources.map((r) => r.path).join('\n');
  useLayoutEffect(() => {
    const stops = resources.map((r) => r.subscribe(() => again(0)));
    return () => {
      for (const stop of stops) stop();
    };
  }, [key]);
  return resources.map((r) => r.snapshot);
}

/** The shared crosshair, at most once a frame. */
export function useCrosshair(): Position {
  const [x, setX] = useState<Position>(crosshair.get());
  useEffect(() => {
    let frame = 0;
    const stop = crosshair.subscribe((next) => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => setX(next));
    });
    return () => {
      stop();
      cancelAnimationFrame(frame);
    };
  }, []);
  return x;
}

/** A value once it has stood still: holding an arrow key must not ask for every layer it passes. */
export function useSettled<T>(value: T, milliseconds: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = window.setTimeout(() => setSettled(value), milliseconds);
    return () => window.clearTimeout(timer);
  }, [value, milliseconds]);
  return settled;
}

export function useTheme(): Theme {
  const [now, setNow] = useState(theme);
  useEffect(() => onTheme(() => setNow(theme())), []);
  return now;
}
