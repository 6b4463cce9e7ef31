import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { poll, refresh, routes } from '../api';
import { useResource, useView } from '../hooks';
import { followVisibility, linkedView, linkView, onLinkChange, onReload } from '../host';
import { DEFAULT_VIEW, sameLink } from '../link';
import { isStored } from '../stored';
import { onlyRun, takeBack, view } from '../view';
import { RunPage } from './RunPage';
import { RunsTable } from './RunsTable';
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
  const entries = runs.value?.runs;
  useHost(() => setLinked(true), (entries?.length ?? 0) > 1);
  // Before the paint, so that the request for the run starts early.
  useLayoutEffect(() => {
    // A link can name a layer and no run: the only run is the one it means.
    const only = onlyRun(entries ?? []);
    if (linked && run === null && only !== null) view.set({ run: only });
  }, [linked, run, entries]);

  // The link that opened the page is gone, and with it the focus of whoever uses the keyboard.
  const main = useRef<HTMLElement>(null);
  const shown = useRef(run);
  useLayoutEffect(() => {
    if (shown.current !== run && document.activeElement === document.body)
      main.current?.focus({ preventScroll: true });
    shown.current = run;
  }, [run]);

  // A link, or a run that was deleted, can name what is not there.
  const here = entries?.some((entry) => entry.run === run) ?? false;
  return (
    <>
      <Toolbar runs={entries ?? []} run={here ? run : null} read={runs} />
      <main ref={main} tabIndex={-1}>
        {runs.value?.problems.map((text) => (
          <p class="banner" key={text}>
            {text}
          </p>
        ))}
        {!runs.value && runs.error && <Failed read={runs} />}
        {!runs.value && !runs.error && <Loading what="runs" />}
        {entries && !entries.length && <Empty />}
        {linked && run === null && entries && entries.length > 1 && <RunsTable runs={entries} />}
        {here && <RunPage key={run} run={run as string} />}
        {run !== null && entries && entries.length > 0 && !here && <Gone run={run} only={onlyRun(entries)} />}
      </main>
      <TipLayer />
    </>
  );
}

/** `several`: another run is another place, which Back leaves; the only run was opened without being chosen. */
function useHost(ready: () => void, several: boolean): void {
  const visible = useRef(true);
  const push = useRef(several);
  push.current = several;
  useLayoutEffect(() => {
    let writing = 0;
    view.set(linkedView());
    let shown = view.get().run;
    ready();
    const stops = [
      view.subscribe((next) => {
        window.clearTimeout(writing);
        if (push.current && next.run !== shown) linkView(next, true);
        else writing = window.setTimeout(() => linkView(view.get()), LINK_MS);
        shown = next.run;
      }),
      onLinkChange((linked) => {
        // Without a run it is the table, which there is of several only.
        if ((linked.run === undefined && !push.current) || sameLink(linked, view.get())) return;
        shown = linked.run ?? null;
        view.set({ ...DEFAULT_VIEW, live: view.get().live, ...linked });
      }),
      onReload(() => void refresh()),
      followVisibility((now) => {
        if (now && !visible.current && view.get().live) void refresh();
        visible.current = now;
      }),
      poll(POLL_SECONDS, () => visible.current && view.get().live && !isStored()),
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
