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
import { setTheme } from './theme';
import { firstRun } from './view';

/** TensorBoard calls this once, when the tab is first opened. */
export async function render(): Promise<void> {
  document.documentElement.lang = 'en';
  document.title = 'BN Lens';
  followTheme(setTheme);
  void foresee();
  await styles();
  const root = document.createElement('div');
  root.id = 'bn-lens';
  document.body.append(root);
  mount(<App />, root);
}

/** Asks beside the styles for what the page will show first: the runs, and then the one that it will open. */
async function foresee(): Promise<void> {
  const runs = routes.runs();
  await runs.load();
  const entries = runs.snapshot.value?.runs ?? [];
  if (!entries.length) return;
  const { run = firstRun(entries), row = DEFAULT_VIEW.row } = linkedView();
  if (run === null || !entries.some((entry) => entry.run === run)) return;
  for (const wanted of [routes.overview(run), routes.series(run, row), routes.losses(run)])
    void wanted.load();
}

/** A chart measures itself when it is made, so the page waits for its styles. */
function styles(): Promise<void> {
  const link = document.createElement('link');
  link.rel = 'stylesheet';
  link.href = './index.css';
  const done = new Promise<void>((resolve) => {
    link.onload = () => resolve();
    link.onerror = () => resolve();
  });
  document.head.append(link);
  return done;
}
