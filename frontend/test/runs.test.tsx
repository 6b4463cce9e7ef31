import { cleanup, fireEvent, render, screen } from '@testing-library/preact';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { RunsTable } from '../src/components/RunsTable';
import { DEFAULT_VIEW } from '../src/link';
import { rowSign, runRow, sortRuns } from '../src/models/runs';
import { type Known, SummaryQueue } from '../src/summaries';
import { onlyRun, showRun, showRuns, takeBack, togglePin, view } from '../src/view';
import type { RunEntry, RunSummary } from '../src/wire';

function summary(change: Partial<RunSummary> = {}): RunSummary {
  return {
    severity: 'none',
    headline: 'No BatchNorm problem found.',
    cause: null,
    causes: 0,
    silenced: 0,
    step: 100,
    batches: 16,
    batch: 1,
    inference: 1,
    harm: 0,
    harm_is_sure: false,
    metric: null,
    momentum: [0.9, 0.9],
    layers: 4,
    last_step: 100,
    planned_steps: null,
    ended: null,
    ended_step: null,
    last_record: null,
    checked: false,
    imported: false,
    framework: 'keras',
    ...change,
  };
}

function entry(run: string, change: Partial<RunSummary> | null = null): RunEntry {
  const known = change && summary(change);
  return {
    run,
    severity: known?.severity ?? null,
    verdict: known?.headline ?? null,
    last_step: 100,
    summary: known,
  };
}

const row = (run: string, change: Partial<RunSummary> | null) =>
  runRow(entry(run), { summary: change && summary(change), error: null });

describe('rows of runs', () => {
  const rows = [
    row('fine', {}),
    row('unknown', null),
    row('quiet', { silenced: 2 }),
    row('bad', { severity: 'error', inference: 10, harm: 9 }),
    row('unmeasured', { inference: null }),
    row('worse', { severity: 'error', inference: 100, harm: 99 }),
    row('warned', { severity: 'warning' }),
    row('infinite', { severity: 'error', inference: null, harm: null }),
  ];
  const names = (key: Parameters<typeof sortRuns>[1]['key'], descending: boolean) =>
    sortRuns(rows, { key, descending }).map(({ entry: { run } }) => run);

  it('come worst first, and by harm within a severity', () => {
    expect(names('severity', true)).toEqual([
      'infinite',
      'worse',
      'bad',
      'warned',
      'quiet',
      'unmeasured',
      'fine',
      'unknown',
    ]);
  });
  it('have those without a value last in either direction', () => {
    const last = ['infinite', 'unknown', 'unmeasured'];
    expect(names('inference', true).slice(-3).sort()).toEqual(last);
    expect(names('inference', false).slice(-3).sort()).toEqual(last);
  });
  it('have no tick where something is silenced or was not measured', () => {
    expect([rowSign(rows[0]), rowSign(rows[1]), rowSign(rows[2]), rowSign(rows[4])]).toEqual([
      'none',
      null,
      'silenced',
      'not_evaluated',
    ]);
  });
});

describe('the queue of analyses', () => {
  const waiting: { run: string; answer: (known: Known) => void }[] = [];
  const load = (run: string) => new Promise<Known>((answer) => waiting.push({ run, answer }));
  const settle = () => new Promise((resolve) => setTimeout(resolve));
  beforeEach(() => {
    waiting.length = 0;
  });

  it('takes runs in order, two at once, and skips known ones', async () => {
    const queue = new SummaryQueue(load);
    const told = vi.fn();
    queue.subscribe(told);
    queue.want([entry('a'), entry('known', {}), entry('b'), entry('c')]);
    expect(waiting.map(({ run }) => run)).toEqual(['a', 'b']);
    waiting[0].answer({ summary: summary({ cause: 'x' }), error: null });
    await settle();
    expect(waiting.map(({ run }) => run)).toEqual(['a', 'b', 'c']);
    expect(queue.of(entry('a')).summary?.cause).toBe('x');
    expect(told).toHaveBeenCalledTimes(1);
  });
  it('draws answers that come together once', async () => {
    vi.useFakeTimers();
    const queue = new SummaryQueue(load);
    const told = vi.fn();
    queue.subscribe(told);
    queue.want([entry('a'), entry('b'), entry('c')]);
    for (const at of [0, 1, 2]) {
      waiting[at].answer({ summary: summary(), error: null });
      await vi.advanceTimersByTimeAsync(1);
    }
    expect(told).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(1000);
    expect(told).toHaveBeenCalledTimes(2);
    vi.useRealTimers();
  });
  it('follows a new order', async () => {
    const queue = new SummaryQueue(load);
    queue.want([entry('a'), entry('b'), entry('c'), entry('d')]);
    queue.want([entry('d'), entry('c'), entry('a'), entry('b')]);
    waiting[0].answer({ summary: null, error: 'It failed.' });
    await settle();
    expect(waiting[2].run).toBe('d');
    expect(queue.of(entry('a')).error).toBe('It failed.');
  });
  it('analyses a growing run again after a while only, and forgets what is gone', async () => {
    vi.useFakeTimers();
    const queue = new SummaryQueue(load);
    queue.want([entry('a')]);
    waiting[0].answer({ summary: summary(), error: null });
    await vi.advanceTimersByTimeAsync(0);
    const grown = { ...entry('a'), last_step: 200 };
    queue.want([grown]);
    expect(waiting.length).toBe(1);
    await vi.advanceTimersByTimeAsync(31_000);
    queue.want([grown]);
    expect(waiting.length).toBe(2);
    vi.useRealTimers();
    queue.want([]);
    expect(queue.of(entry('a')).summary).toBeNull();
  });
});

describe('the table of runs', () => {
  const runs = [
    entry('exp/fine', {}),
    entry('exp/bad', { severity: 'error', cause: 'Momentum too high', causes: 2 }),
    entry('<b>other</b>', { silenced: 1 }),
  ];
  beforeEach(() => {
    view.set(DEFAULT_VIEW);
    vi.stubGlobal('fetch', () => new Promise(() => {}));
  });
  afterEach(() => {
    cleanup();
    vi.unstubAllGlobals();
  });
  const shown = () => screen.getAllByRole('rowheader').map((cell) => cell.textContent);

  it('shows the worst first, filters and sorts', () => {
    render(<RunsTable runs={runs} />);
    expect(shown()).toEqual(['exp/bad', '<b>other</b>', 'exp/fine']);
    expect(screen.getByText('Momentum too high (+1)')).toBeTruthy();
    expect(screen.getByText('1 silenced')).toBeTruthy();
    fireEvent.click(screen.getByRole('button', { name: 'Run' }));
    expect(shown()).toEqual(['<b>other</b>', 'exp/bad', 'exp/fine']);
    fireEvent.input(screen.getByRole('searchbox'), { target: { value: '^exp/' } });
    expect(shown()).toEqual(['exp/bad', 'exp/fine']);
    fireEvent.click(screen.getByRole('checkbox', { name: 'problems only' }));
    expect(shown()).toEqual(['exp/bad']);
  });
  it('opens a run, and is there again', () => {
    render(<RunsTable runs={runs} />);
    fireEvent.click(screen.getByRole('button', { name: 'exp/fine' }));
    expect(view.get().run).toBe('exp/fine');
    showRuns();
    expect(view.get().run).toBeNull();
  });
  it('compares the runs that are ticked, in its own order', () => {
    render(<RunsTable runs={runs} />);
    const button = () => screen.getByRole('button', { name: /^Compare/ }) as HTMLButtonElement;
    fireEvent.click(screen.getByRole('checkbox', { name: 'Compare exp/fine' }));
    expect(button().disabled).toBe(true);
    fireEvent.click(screen.getByRole('checkbox', { name: 'Compare exp/bad' }));
    expect(view.get().run).toBeNull();
    fireEvent.click(button());
    expect(view.get()).toMatchObject({ run: 'exp/bad', compare: ['exp/fine'] });
  });
});

describe('the view', () => {
  beforeEach(() => view.set(DEFAULT_VIEW));

  it('opens the only run by itself', () => {
    expect(onlyRun([entry('a')])).toBe('a');
    expect(onlyRun([entry('a'), entry('b')])).toBeNull();
  });
  it('lets go of a pin on the second click and on Escape, then of the zoom', () => {
    togglePin(5);
    togglePin(5);
    expect(view.get().step).toBeNull();
    togglePin(5);
    view.set({ range: [0, 1] });
    expect([takeBack(), view.get().step, view.get().range]).toEqual([true, null, [0, 1]]);
    expect([takeBack(), view.get().range, takeBack()]).toEqual([true, null, false]);
  });
  it('keeps nothing of a run when another is shown', () => {
    view.set({ run: 'a', layer: 3, step: 5, finding: 'x', compare: ['b', 'c'] });
    showRun('b');
    expect(view.get()).toMatchObject({ run: 'b', layer: null, step: null, finding: null, compare: ['c'] });
  });
});
