import { refresh, type Snapshot } from '../api';
import { useView } from '../hooks';
import { showRun } from '../view';
import { Code } from './Code';

const FIRST_LINES = `from tb_bnlens import BNLens

model.fit(
    ds,
    callbacks=[BNLens("runs/exp1")],
)`;

export function Loading({ what }: { what: string }) {
  return (
    <div class="page-state" role="status">
      <div class="skeleton wide" />
      <div class="skeleton" />
      <div class="skeleton" />
      <p>Reading {what} …</p>
    </div>
  );
}

export function Failed({ read }: { read: Snapshot<unknown> }) {
  return (
    <div class="page-state failed" role="alert">
      <h2>This could not be read</h2>
      <p>{read.error}</p>
      <p class="muted">
        <Retry read={read} />
      </p>
      <button type="button" class="button" onClick={() => void refresh()}>
        Try again
      </button>
    </div>
  );
}

/** What is shown is older than what was asked for. */
export function Stale({ read }: { read: Snapshot<unknown> }) {
  return (
    <p class="banner" role="status">
      {read.error} What is shown was read at {time(read.at)}. <Retry read={read} />
    </p>
  );
}

/** When polling asks again for what failed. */
function Retry({ read }: { read: Snapshot<unknown> }) {
  const live = useView((v) => v.live);
  return (
    <>
      {live
        ? `It is asked for again after ${time(read.retryAt)}.`
        : 'Live is off: nothing is asked for again.'}
    </>
  );
}

function time(at: number): string {
  return new Date(at).toLocaleTimeString('en-GB');
}

export function Gone({ run, first }: { run: string; first: string }) {
  return (
    <div class="page-state" role="status">
      <h2>Run “{run}” is not in this log directory</h2>
      <p>
        It was deleted or renamed, or it has not written its first record. It is shown as soon as it appears.
      </p>
      <button type="button" class="button" onClick={() => showRun(first)}>
        Show {first}
      </button>
    </div>
  );
}

export function Empty() {
  return (
    <div class="page-state empty">
      <h1>No BatchNorm records here yet</h1>
      <p>
        Add the callback to training, with a folder under this TensorBoard’s <code>--logdir</code>. The tab
        fills in by itself as soon as the first record is written.
      </p>
      <Code text={FIRST_LINES} name="the lines to add" />
      <p class="muted">
        In a loop of your own: <code>lens = tb_bnlens.Recorder(model, "runs/exp1", loss=loss_fn)</code>, then{' '}
        <code>lens.record(x, y)</code> after each step.
      </p>
    </div>
  );
}
