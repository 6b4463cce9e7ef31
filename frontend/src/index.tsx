import { render as mount } from 'preact';
import { routes } from './api';
import { App } from './components/App';
import { followTheme, linkedView } from './host';
import { DEFAULT_VIEW } from './link';
import './styles/tokens.css';
import './styles/base.css';
import './styles/controls.css';
import './styles/verdict.css';
import './styles/findings.css';
import './styles/charts.css';
import './styles/layers.css';
import './styles/runs.css';
import { isStored } from './stored';
import { setTheme } from './theme';
import { onlyRun } from './view';

/** TensorBoard calls this once, when the tab is first opened. */
export async function render(): Promise<void> {
  document.documentElement.lang = 'en';
  document.title = 'BN Lens';
  followTheme(setTheme);
  void prefetch();
  await styles();
  const root = document.createElement('div');
  root.id = 'bn-lens';
  document.body.append(root);
  mount(<App />, root);
}

/** Loads, beside the styles, what the page shows first: the runs, then the run that opens. */
async function prefetch(): Promise<void> {
  const runs = routes.runs();
  await runs.load();
  const entries = runs.snapshot.value?.runs ?? [];
  if (!entries.length) return;
  const { run = onlyRun(entries), row = DEFAULT_VIEW.row } = linkedView();
  if (run === null || !entries.some((entry) => entry.run === run)) return;
  for (const wanted of [routes.overview(run), routes.series(run, row), routes.losses(run)])
    void wanted.load();
}

// A page that was saved as one file has no host that calls.
if (isStored()) void render();

/** A chart measures itself when it is created, so the page waits for its styles. */
async function styles(): Promise<void> {
  if (isStored()) return;
  const link = document.createElement('link');
  link.rel = 'stylesheet';
  link.href = './index.css';
  const done = new Promise<void>((resolve) => {
    link.onload = () => resolve();
    link.onerror = () => resolve();
  });
  document.head.append(link);
  await done;
}
