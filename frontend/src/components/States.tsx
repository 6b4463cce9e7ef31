import { refresh, type Snapshot } from '../api';
import { useView } from '../hooks';
import { showRun, showRuns } from '../view';
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
      <p>Loading {what}…</p>
    </div>
  );
}

export function Failed({ read }: { read: Snapshot<unknown> }) {
  return (
    <div class="page-state failed" role="alert">
      <h2>This could not be loaded</h2>
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

/** The data on the page is older than the last request. */
export function Stale({ read }: { read: Snapshot<unknown> }) {
  return (
    <p class="banner" role="status">
      {read.error} The page shows data loaded at {time(read.at)}. <Retry read={read} />
    </p>
  );
}

/** When polling tries again after a failure. */
function Retry({ read }: { read: Snapshot<unknown> }) {
  const live = useView((v) => v.live);
  return (
    <>{live ? `The next try is after ${time(read.retryAt)}.` : 'Live is off, so it is not tried again.'}</>
  );
}

function time(at: number): string {
  return new Date(at).toLocaleTimeString('en-GB');
}

export function Gone({ run, only }: { run: string; only: string | null }) {
  return (
    <div class="page-state" role="status">
      <h2>Run “{run}” is not in this log directory</h2>
      <p>
        It was deleted or renamed, or it has no record yet. It appears here as soon as its first record is
        written.
      </p>
      <button type="button" class="button" onClick={() => (only === null ? showRuns() : showRun(only))}>
        {only === null ? 'Show all runs' : `Show ${only}`}
      </button>
    </div>
  );
}

export function Empty() {
  return (
    <div class="page-state empty">
      <h1>No BatchNorm records here yet</h1>
      <p>
        Add the callback to training, with a directory inside this TensorBoard’s <code>--logdir</code>. The
        tab updates as soon as the first record is written.
      </p>
      <Code text={FIRST_LINES} name="the lines to add" />
      <p class="muted">
        In a custom training loop: <code>lens = tb_bnlens.Recorder(model, "runs/exp1", loss=loss_fn)</code>,
        then <code>lens.record(x, y)</code> after each step. PyTorch and flax nnx have recorders of their own:{' '}
        <code>tb_bnlens.torch.Recorder</code> and <code>tb_bnlens.flax.Recorder</code>.
      </p>
    </div>
  );
}
