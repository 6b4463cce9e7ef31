import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { poll, refresh, routes } from '../api';
import { useResource, useView } from '../hooks';
import { followVisibility, linkedView, linkView, onLinkChange, onReload } from '../host';
import { DEFAULT_VIEW, sameLink } from '../link';
import { firstRun, showRun, takeBack, view } from '../view';
import { RunPage } from './RunPage';
import { Empty, Failed, Gone, Loading } from './States';
import { TipLayer } from './Tip';
import { Toolbar } from './Toolbar';

const POLL_SECONDS = 5;
// Browsers refuse more than some 200 changes of the address in half a minute: a slider makes that many.
const LINK_MS = 200;

export function App() {
  const runs = useResource(routes.runs());
  const run = useView((v) => v.run);
  const [linked, setLinked] = useState(false);
  useHost(() => setLinked(true));
  const entries = runs.value?.runs;
  // None of these waits for a paint: the sooner the run is known, the sooner it is asked for.
  useLayoutEffect(() => {
    if (linked && run === null && entries?.length) showRun(firstRun(entries));
  }, [linked, run, entries]);

  // A link, or a run that was deleted, can name what is not there.
  const here = entries?.some((entry) => entry.run === run) ?? false;
  return (
    <>
      <Toolbar runs={entries ?? []} run={here ? run : null} read={runs} />
      <main>
        {runs.value?.problems.map((text) => (
          <p class="banner" key={text}>
            {text}
          </p>
        ))}
        {!runs.value && runs.error && <Failed read={runs} />}
        {!runs.value && !runs.error && <Loading what="runs" />}
        {entries && !entries.length && <Empty />}
        {here && <RunPage key={run} run={run as string} />}
        {run !== null && entries && entries.length > 0 && !here && (
          <Gone run={run} first={firstRun(entries)} />
        )}
      </main>
      <TipLayer />
    </>
  );
}

function useHost(ready: () => void): void {
  const visible = useRef(true);
  useLayoutEffect(() => {
    let writing = 0;
    view.set(linkedView());
    ready();
    const stops = [
      view.subscribe(() => {
        window.clearTimeout(writing);
        writing = window.setTimeout(() => linkView(view.get()), LINK_MS);
      }),
      onLinkChange((linked) => {
        // Another tab's hash says nothing of ours; a pasted link says all of it.
        if (linked.run === undefined || sameLink(linked, view.get())) return;
        view.set({ ...DEFAULT_VIEW, live: view.get().live, ...linked });
      }),
      onReload(() => void refresh()),
      followVisibility((now) => {
        if (now && !visible.current && view.get().live) void refresh();
        visible.current = now;
      }),
      poll(POLL_SECONDS, () => visible.current && view.get().live),
    ];
    const onKey = (event: KeyboardEvent) => {
      if (event.key === 'Escape' && !event.defaultPrevented && takeBack()) event.preventDefault();
    };
    document.addEventListener('keydown', onKey);
    stops.push(() => document.removeEventListener('keydown', onKey));
    return () => {
      window.clearTimeout(writing);
      for (const stop of stops) stop();
    };
  }, []);
}
