import { DEFAULT_VIEW, type View } from './link';
import type { RunEntry } from './wire';

type Listener = (view: View) => void;

/** What the user is looking at: the one mutable thing of the page, and what a deep link holds. */
class ViewStore {
  private view: View = DEFAULT_VIEW;
  private readonly listeners = new Set<Listener>();

  get(): View {
    return this.view;
  }

  set(change: Partial<View>): void {
    const next = { ...this.view, ...change };
    if ((Object.keys(next) as (keyof View)[]).every((key) => Object.is(next[key], this.view[key]))) return;
    this.view = next;
    for (const listener of [...this.listeners]) listener(next);
  }

  subscribe(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

export const view = new ViewStore();

/** The run that is opened without being chosen: the only one. Of several the table shows which is worst. */
export function onlyRun(entries: readonly RunEntry[]): string | null {
  return entries.length === 1 ? entries[0].run : null;
}

const NOTHING_CHOSEN = { finding: null, layer: null, step: null, range: null } as const;

/** Another run has other layers and steps, so what pointed into the old one goes. */
export function showRun(run: string): void {
  if (run === view.get().run) return;
  const compare = view.get().compare.filter((other) => other !== run);
  view.set({ run, compare, ...NOTHING_CHOSEN });
}

/** Shows several runs side by side, with the page of the first. */
export function compareRuns([run, ...compare]: readonly string[]): void {
  view.set({ run, compare, ...NOTHING_CHOSEN });
}

/** Shows the table of all runs. */
export function showRuns(): void {
  view.set({ run: null, compare: [], ...NOTHING_CHOSEN });
}

export function toggleFinding(rule: string): void {
  view.set({ finding: view.get().finding === rule ? null : rule });
}

/** Pins a step; the one that is pinned already is let go. */
export function togglePin(step: number | null): void {
  view.set({ step: view.get().step === step ? null : step });
}

/** What Escape takes back: the pin, then the zoom. Whether there was anything. */
export function takeBack(): boolean {
  const { step, range } = view.get();
  if (step !== null) view.set({ step: null });
  else if (range) view.set({ range: null });
  return step !== null || range !== null;
}
