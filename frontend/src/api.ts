import { decodeFrame, type Frame } from './frame';
import { isStored, storedReply } from './stored';
import type { Overview, RunList, RunSummary } from './wire';

/** What a component sees of one route: the last good value stays while a newer one is fetched or fails. */
export interface Snapshot<T> {
  value: T | null;
  error: string | null;
  loading: boolean;
  /** Time of the last good answer, in ms; 0 before it. */
  at: number;
  /** After a failure, when polling asks again, in ms; 0 otherwise. */
  retryAt: number;
}

type Listener = () => void;

const KEPT = 80;
// What failed once is likely to fail again, and a server in trouble is not helped by being asked.
const FIRST_RETRY_MS = 10_000;
const LAST_RETRY_MS = 160_000;
// A TensorBoard that was stopped is started again by hand, and nobody is burdened meanwhile.
const LAST_UNREACHABLE_MS = 20_000;
const UNREACHABLE = 'TensorBoard does not answer. Is it still running?';

/** One route, fetched with its ETag so that an unchanged answer costs nothing and keeps its identity. */
export class Resource<T> {
  snapshot: Snapshot<T> = { value: null, error: null, loading: false, at: 0, retryAt: 0 };
  private etag: string | null = null;
  private failures = 0;
  private readonly listeners = new Set<Listener>();
  private pending: Promise<void> | null = null;

  constructor(
    readonly path: string,
    private readonly decode: (reply: Response) => Promise<T>,
  ) {}

  get watched(): boolean {
    return this.listeners.size > 0;
  }

  /** Whether polling may ask now: after each failure in a row it waits twice as long. */
  get due(): boolean {
    return Date.now() >= this.snapshot.retryAt;
  }

  subscribe(listener: Listener): () => void {
    this.listeners.add(listener);
    if (!this.snapshot.at) void this.load();
    return () => this.listeners.delete(listener);
  }

  load(): Promise<void> {
    this.pending ??= this.fetch().finally(() => {
      this.pending = null;
    });
    return this.pending;
  }

  private async fetch(): Promise<void> {
    if (!this.snapshot.at) this.set({ ...this.snapshot, loading: true });
    try {
      const headers: Record<string, string> = this.etag ? { 'If-None-Match': this.etag } : {};
      const reply = isStored()
        ? await storedReply(this.path)
        : await fetch(new URL(this.path, document.baseURI), { headers, cache: 'no-store' });
      if (reply.status === 304) {
        // A reply that is dropped unread counts as an aborted request.
        await reply.text();
        this.succeed(this.snapshot.value as T);
        return;
      }
      if (!reply.ok) throw new RouteError(await sentence(reply));
      const value = await this.decode(reply);
      this.etag = reply.headers.get('ETag');
      this.succeed(value);
    } catch (error) {
      const unreachable = error instanceof TypeError;
      const message = unreachable ? UNREACHABLE : String((error as Error).message ?? error);
      const longest = unreachable ? LAST_UNREACHABLE_MS : LAST_RETRY_MS;
      const wait = Math.min(FIRST_RETRY_MS * 2 ** this.failures++, longest);
      this.set({ ...this.snapshot, error: message, loading: false, retryAt: Date.now() + wait });
    }
  }

  private succeed(value: T): void {
    this.failures = 0;
    this.set({ value, error: null, loading: false, at: Date.now(), retryAt: 0 });
  }

  private set(next: Snapshot<T>): void {
    this.snapshot = next;
    for (const listener of [...this.listeners]) listener();
  }
}

class RouteError extends Error {}

async function sentence(reply: Response): Promise<string> {
  const body: unknown = await reply.json().catch(() => null);
  const error = (body as { error?: unknown } | null)?.error;
  return typeof error === 'string' ? error : `${reply.status} ${reply.statusText} from ${reply.url}`;
}

const resources = new Map<string, Resource<unknown>>();

function resource<T>(
  route: string,
  query: Record<string, string>,
  decode: (r: Response) => Promise<T>,
): Resource<T> {
  const search = new URLSearchParams(query).toString();
  const path = search ? `${route}?${search}` : route;
  let found = resources.get(path) as Resource<T> | undefined;
  if (!found) {
    found = new Resource(path, decode);
    resources.set(path, found as Resource<unknown>);
    forgetOld();
  }
  return found;
}

function forgetOld(): void {
  for (const [path, kept] of resources) {
    if (resources.size <= KEPT) return;
    if (!kept.watched) resources.delete(path);
  }
}

const json = <T>(reply: Response): Promise<T> => reply.json() as Promise<T>;
const frame = async (reply: Response): Promise<Frame> => decodeFrame(await reply.arrayBuffer());

export const routes = {
  runs: () => resource<RunList>('runs', {}, json),
  overview: (run: string) => resource<Overview>('overview', { run }, json),
  summary: (run: string) => resource<RunSummary>('summary', { run }, json),
  losses: (run: string) => resource('losses', { run }, frame),
  series: (run: string, row: string) => resource('series', { run, row }, frame),
  layer: (run: string, layer: number) => resource('layer', { run, layer: String(layer) }, frame),
  channels: (run: string, layer: number) => resource('channels', { run, layer: String(layer) }, frame),
};

/** Asks again for everything that is on the page; `due` leaves out what failed a short while ago. */
export async function refresh(due = false): Promise<void> {
  const wanted = [...resources.values()].filter((r) => r.watched && (!due || r.due));
  await Promise.all(wanted.map((r) => r.load()));
}

/** Refreshes what is due every `seconds` while `wanted()`; returns what stops it. A slow answer is waited for, not piled on. */
export function poll(seconds: number, wanted: () => boolean): () => void {
  let timer = 0;
  let stopped = false;
  const again = () => {
    if (!stopped) timer = window.setTimeout(tick, seconds * 1000);
  };
  const tick = () => {
    if (wanted()) void refresh(true).finally(again);
    else again();
  };
  again();
  return () => {
    stopped = true;
    window.clearTimeout(timer);
  };
}
