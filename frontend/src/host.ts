import { readLink, type View, writeLink } from './link';
import { storedLink } from './stored';

/**
 * TensorBoard around the iframe. Its plugin library was never published, so this speaks the host's own small
 * protocol; where there is no such host (a page opened directly), everything falls back to the page itself.
 */

function parentWindow(): Window {
  try {
    // Reading a property is what throws when the parent is of another origin, as in some notebooks.
    void window.parent.location.hash;
    return window.parent;
  } catch {
    return window;
  }
}

/** Calls back now and whenever the theme changes. */
export function followTheme(apply: (dark: boolean) => void): () => void {
  const system = window.matchMedia('(prefers-color-scheme: dark)');
  const host = parentWindow();
  if (host === window) {
    const update = () => apply(system.matches);
    update();
    system.addEventListener('change', update);
    return () => system.removeEventListener('change', update);
  }
  const body = host.document.body;
  const update = () => apply(body.classList.contains('dark-mode'));
  update();
  const observer = new MutationObserver(update);
  observer.observe(body, { attributes: true, attributeFilter: ['class'] });
  return () => observer.disconnect();
}

/** Calls back when the host's reload button was pressed or its automatic reload ran. */
export function onReload(reload: () => void): () => void {
  if (window.parent === window) return () => {};
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = (event: MessageEvent<string>) => {
    const message = JSON.parse(event.data) as { type: string; id: number; isReply: boolean };
    if (message.isReply) return;
    if (message.type === 'experimental.DataReloaded') reload();
    // The host keeps a promise open for every message until it is answered.
    port1.postMessage(
      JSON.stringify({ type: message.type, id: message.id, payload: null, error: null, isReply: true }),
    );
  };
  window.parent.postMessage('experimental.bootstrap', '*', [port2]);
  return () => port1.close();
}

/**
 * Whether anyone can see the page. The host keeps a hidden tab's iframe at height 0 and `visibilityState`
 * "visible", so only the intersection tells.
 */
export function followVisibility(apply: (visible: boolean) => void): () => void {
  let shown = true;
  const update = () => apply(shown && document.visibilityState === 'visible');
  const observer = new IntersectionObserver((entries) => {
    shown = entries[entries.length - 1].isIntersecting && window.innerHeight > 0;
    update();
  });
  observer.observe(document.documentElement);
  document.addEventListener('visibilitychange', update);
  window.addEventListener('resize', onResize);
  function onResize() {
    const now = window.innerHeight > 0;
    if (now !== shown) {
      shown = now;
      update();
    }
  }
  return () => {
    observer.disconnect();
    document.removeEventListener('visibilitychange', update);
    window.removeEventListener('resize', onResize);
  };
}

export function linkedView(): Partial<View> {
  return readLink(parentWindow().location.hash || storedLink());
}

/** Writes the view into the address; `push` makes it an entry of the history, so that Back leads here. */
export function linkView(view: View, push = false): void {
  const host = parentWindow();
  const hash = writeLink(host.location.hash, view);
  if (hash === host.location.hash) return;
  if (push) host.history.pushState(host.history.state, '', hash);
  else host.history.replaceState(host.history.state, '', hash);
}

/** Calls back with what the address says of the view, when it changes; another tab's address says nothing. */
export function onLinkChange(apply: (view: Partial<View>) => void): () => void {
  const host = parentWindow();
  const update = () => {
    if (ours(host.location.hash)) apply(linkedView());
  };
  host.addEventListener('hashchange', update);
  return () => host.removeEventListener('hashchange', update);
}

function ours(hash: string): boolean {
  return /^#?$|^#bn_lens(&|$)|[#&]p\.bn_lens\./.test(hash);
}
