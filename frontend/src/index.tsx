import { render as mount } from 'preact';
import { routes } from './api';
import { App } from './components/App';
import { followTheme } from './host';
import './styles/tokens.css';
import './styles/base.css';
import './styles/controls.css';
import './styles/verdict.css';
import './styles/findings.css';
import './styles/charts.css';
import './styles/layers.css';
import { setTheme } from './theme';

/** TensorBoard calls this once, when the tab is first opened. */
export async function render(): Promise<void> {
  document.documentElement.lang = 'en';
  document.title = 'BN Lens';
  followTheme(setTheme);
  // Whatever the page will be, it needs the runs: they are asked for beside the styles.
  void routes.runs().load();
  await styles();
  const root = document.createElement('div');
  root.id = 'bn-lens';
  document.body.append(root);
  mount(<App />, root);
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
