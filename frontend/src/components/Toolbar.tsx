import { refresh, routes, type Snapshot } from '../api';
import { saveText } from '../download';
import { useResource, useView } from '../hooks';
import { X_AXES } from '../link';
import { counting, fixFile } from '../models/findings';
import { showRun, view } from '../view';
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
  const axis = useView((v) => v.axis);
  const smoothing = useView((v) => v.smoothing);
  const live = useView((v) => v.live);
  return (
    <header class="toolbar">
      <RunPicker label="Run" runs={runs} chosen={run === null ? [] : [run]} onChoose={showRun} />
      {runs.length > 1 && (
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
        data-tip="Exponential moving average of the loss lines, as in Time Series; on a log axis the logarithm is smoothed."
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
      <div class="group">
        <button
          type="button"
          class="button"
          aria-pressed={live}
          data-tip="Asks for new records every 5 s while this tab is visible."
          onClick={() => view.set({ live: !live })}
        >
          <i class={`dot ${live && !read.error ? 'on' : ''}`} aria-hidden="true" />
          Live
        </button>
        <button type="button" class="button" onClick={() => void refresh()} data-tip={readAt(read)}>
          Reload
        </button>
        {run !== null && <Downloads run={run} />}
      </div>
    </header>
  );
}

const AXIS_TIP = {
  step: 'Optimizer steps.',
  relative: 'Time since the first record of the run.',
  wall: 'Time of day.',
};

function readAt(read: Snapshot<RunList>): string {
  const when = read.at ? `Last read at ${new Date(read.at).toLocaleTimeString('en-GB')}.` : 'Not read yet.';
  return read.error ? `${read.error} ${when}` : when;
}

function Downloads({ run }: { run: string }) {
  const overview = useResource(routes.overview(run)).value;
  if (!overview) return null;
  const json = (name: string, content: unknown) =>
    saveText(`${run}-${name}.json`, 'application/json', JSON.stringify(content, null, 1));
  return (
    <Menu label="Download" title="Download this run’s analysis">
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
