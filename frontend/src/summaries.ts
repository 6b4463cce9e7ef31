import { routes } from './api';
import type { RunEntry, RunSummary } from './wire';

/** What is known of a run for the table of runs. */
export interface Known {
  summary: RunSummary | null;
  /** Why the analysis failed. */
  error: string | null;
}

type Load = (run: string) => Promise<Known>;

/** An analysis of a run that still trains, or one that failed, is repeated after this time. */
export const AGAIN_MS = 30_000;
const AT_ONCE = 2;
/** Between two drawings of the table: to draw 300 rows for each of 300 answers takes longer than the answers. */
const DRAWN_MS = 200;

/** Analyses runs in the order in which they are wanted, a few at once. */
export class SummaryQueue {
  private readonly known = new Map<string, Known & { step: number | null; at: number }>();
  private readonly listeners = new Set<() => void>();
  private wanted: readonly RunEntry[] = [];
  private running = new Set<string>();
  private pause = 0;
  private news = false;

  constructor(private readonly load: Load) {}

  /** The newer of the summary in the list of runs and the one loaded here. */
  of({ run, summary }: RunEntry): Known {
    const own = this.known.get(run);
    if (!own || (summary && (summary.last_step ?? 0) > (own.summary?.last_step ?? 0)))
      return { summary, error: null };
    return own;
  }

  /** Sets which runs are analysed and in which order; runs that are not named are forgotten. */
  want(entries: readonly RunEntry[]): void {
    this.wanted = entries;
    const names = new Set(entries.map(({ run }) => run));
    for (const run of this.known.keys()) if (!names.has(run)) this.known.delete(run);
    this.next();
  }

  /** Analyses no further run. */
  stop(): void {
    this.wanted = [];
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private due(entry: RunEntry): boolean {
    if (this.running.has(entry.run)) return false;
    const own = this.known.get(entry.run);
    if (!own) return entry.summary === null || entry.summary.last_step !== entry.last_step;
    return (own.error !== null || own.step !== entry.last_step) && Date.now() - own.at > AGAIN_MS;
  }

  private next(): void {
    for (const entry of this.wanted) {
      if (this.running.size >= AT_ONCE) return;
      if (this.due(entry)) void this.analyse(entry);
    }
  }

  private async analyse({ run, last_step }: RunEntry): Promise<void> {
    this.running.add(run);
    const known = await this.load(run);
    this.running.delete(run);
    this.known.set(run, { ...known, step: last_step, at: Date.now() });
    this.tell();
    this.next();
  }

  /** Tells the first answer at once, and the next ones together after a pause. */
  private tell(): void {
    if (this.pause) {
      this.news = true;
      return;
    }
    for (const listener of [...this.listeners]) listener();
    this.pause = window.setTimeout(() => {
      this.pause = 0;
      if (!this.news) return;
      this.news = false;
      this.tell();
    }, DRAWN_MS);
  }
}

/** The queue of the page. */
export const summaries = new SummaryQueue(async (run) => {
  const resource = routes.summary(run);
  await resource.load();
  return { summary: resource.snapshot.value, error: resource.snapshot.error };
});
