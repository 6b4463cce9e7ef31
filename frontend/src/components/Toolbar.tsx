import { refresh, routes, type Snapshot } from '../api';
import { saveText } from '../download';
import { useResource, useView } from '../hooks';
import { X_AXES } from '../link';
import { counting, fixFile } from '../models/findings';
import { storedAt } from '../stored';
import { showRun, showRuns, view } from '../view';
import type { RunEntry, RunList } from '../wire';
import { Menu } from './Panel';
import { RunPicker } from './RunPicker';

interface Props {
  runs: readonly RunEntry[];
  /** The run on the page, null where there is none. */
  run: string | null;
  read: Snapshot<RunList>;
}

export function Toolbar({ runs, run, read }: Props) {
  const compare = useView((v) => v.compare);
  const live = useView((v) => v.live);
  const saved = storedAt();
  return (
    <header class="toolbar">
      {runs.length > 1 && run !== null && (
        <button type="button" class="button" onClick={showRuns} aria-label="All runs">
          <span aria-hidden="true">‹</span> Runs
        </button>
      )}
      {run !== null && <RunPicker label="Run" runs={runs} chosen={[run]} onChoose={showRun} />}
      {runs.length > 1 && run !== null && (
        <RunPicker
          label="Compare"
          many
          runs={runs.filter((entry) => entry.run !== run)}
          chosen={compare}
          onChoose={(name) =>
            view.set({
              compare: compare.includes(name)
                ? compare.filter((other) => other !== name)
                : [...compare, name],
            })
          }
        />
      )}
      <span class="spacer" />
      {run !== null && <TimeControls />}
      <div class="group">
        {saved === null ? (
          <>
            <button
              type="button"
              class="button"
              aria-pressed={live}
              data-tip="Load new records every 5 s while this tab is visible."
              onClick={() => view.set({ live: !live })}
            >
              <i class={`dot ${live && !read.error ? 'on' : ''}`} aria-hidden="true" />
              Live
            </button>
            <button type="button" class="button" onClick={() => void refresh()} data-tip={readAt(read)}>
              Reload
            </button>
          </>
        ) : (
          <span class="saved muted">saved {new Date(saved * 1000).toLocaleString('en-GB')}</span>
        )}
        {run !== null && <Downloads run={run} />}
      </div>
    </header>
  );
}

/** The x axis and the smoothing of all charts. */
function TimeControls() {
  const axis = useView((v) => v.axis);
  const smoothing = useView((v) => v.smoothing);
  return (
    <>
      <div class="segmented" role="group" aria-label="x axis">
        {X_AXES.map((name) => (
          <button
            key={name}
            type="button"
            aria-pressed={axis === name}
            data-tip={AXIS_TIP[name]}
            onClick={() => view.set({ axis: name, range: null })}
          >
            {name}
          </button>
        ))}
      </div>
      <label
        class="smoothing"
        data-tip="Exponential moving average of the losses, as in Time Series. On a log axis it averages the logarithm."
      >
        smoothing
        <input
          type="range"
          min="0"
          max="0.99"
          step="0.01"
          value={smoothing}
          onInput={(e) => view.set({ smoothing: Number(e.currentTarget.value) })}
        />
        <output>{smoothing.toFixed(2)}</output>
      </label>
    </>
  );
}

const AXIS_TIP = {
  step: 'Optimizer steps.',
  relative: 'Time since the first record.',
  wall: 'Time of day.',
};

function readAt(read: Snapshot<RunList>): string {
  const when = read.at
    ? `Last loaded at ${new Date(read.at).toLocaleTimeString('en-GB')}.`
    : 'Not loaded yet.';
  return read.error ? `${read.error} ${when}` : when;
}

function Downloads({ run }: { run: string }) {
  const overview = useResource(routes.overview(run)).value;
  if (!overview) return null;
  const json = (name: string, content: unknown) =>
    saveText(`${run}-${name}.json`, 'application/json', JSON.stringify(content, null, 1));
  return (
    <Menu label="Download" title="Download the analysis of this run">
      <button type="button" onClick={() => json('report', overview)}>
        Report (JSON)
      </button>
      <button type="button" onClick={() => json('findings', counting(overview.findings))}>
        Findings (JSON)
      </button>
      <button
        type="button"
        onClick={() => saveText(`${run}-fix.py`, 'text/x-python', fixFile(overview.findings))}
      >
        Fixes (Python)
      </button>
    </Menu>
  );
}
