type Listener = () => void;

const listeners = new Set<Listener>();

/** Sets the colours of the page; canvases are told, since they cannot inherit them. */
export function setTheme(dark: boolean): void {
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  for (const listener of [...listeners]) listener();
}

export function onTheme(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export type Theme = 'light' | 'dark';

export function theme(): Theme {
  return document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light';
}

/** A colour of the current theme, by the name of its custom property. */
export function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || '#888';
}

export const FONT = '11px Roboto, "Segoe UI", "Noto Sans", system-ui, sans-serif';
