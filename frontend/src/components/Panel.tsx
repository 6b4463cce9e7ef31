import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { saveText } from '../download';
import { type Cell, csv } from '../models/csv';
import { DataTable } from './DataTable';

/** The numbers behind a chart, for its CSV, its JSON and the table that stands for the canvas. */
export interface ChartData {
  name: string;
  header: string[];
  rows: Cell[][];
}

export interface PanelProps {
  title: string;
  /** One line under the title: what the panel shows and how to read it. */
  hint?: ComponentChildren;
  tools?: ComponentChildren;
  /** Built on demand: a chart can hold a million numbers. */
  data?: () => ChartData;
  picture?: () => void;
  class?: string;
  children: ComponentChildren;
}

export function Panel({ title, hint, tools, data, picture, class: name, children }: PanelProps) {
  const heading = <h2 title={title}>{title}</h2>;
  return (
    <section class={`panel ${name ?? ''}`} aria-label={title}>
      {data ? (
        <Exports title={title} data={data} picture={picture} tools={tools} hint={hint}>
          {heading}
        </Exports>
      ) : (
        <header class="panel-head">
          {heading}
          <div class="tools">{tools}</div>
        </header>
      )}
      {children}
    </section>
  );
}

interface ExportsProps {
  title: string;
  data: () => ChartData;
  picture?: () => void;
  tools?: ComponentChildren;
  hint?: ComponentChildren;
  children: ComponentChildren;
}

/** The head of a chart: its title, its tools, and its numbers as picture, file and table. */
export function Exports({ title, data, picture, tools, hint, children }: ExportsProps) {
  const [table, setTable] = useState(false);
  return (
    <>
      <header class="panel-head">
        {children}
        <div class="tools">
          {tools}
          <Menu label="Export" title={`Export ${title}`}>
            {picture && (
              <button type="button" onClick={picture}>
                PNG picture
              </button>
            )}
            <button type="button" onClick={() => saveCsv(data())}>
              CSV
            </button>
            <button type="button" onClick={() => saveJson(data())}>
              JSON
            </button>
            <button type="button" aria-pressed={table} onClick={() => setTable(!table)}>
              {table ? 'Hide table' : 'Show as table'}
            </button>
          </Menu>
        </div>
      </header>
      {hint && <p class="hint">{hint}</p>}
      {table && <DataTable title={title} data={data()} />}
    </>
  );
}

function saveCsv({ name, header, rows }: ChartData): void {
  saveText(`${name}.csv`, 'text/csv', csv(header, rows));
}

function saveJson({ name, header, rows }: ChartData): void {
  const records = rows.map((row) => Object.fromEntries(header.map((key, i) => [key, row[i] ?? null])));
  saveText(`${name}.json`, 'application/json', JSON.stringify(records));
}

/** A button that opens a few more; closed by Escape, by choosing, and by leaving it. */
export function Menu({
  label,
  title,
  children,
}: {
  label: string;
  title: string;
  children: ComponentChildren;
}) {
  const box = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    const close = (event: Event) => {
      if (box.current?.open && !box.current.contains(event.target as Node)) box.current.open = false;
    };
    document.addEventListener('pointerdown', close);
    document.addEventListener('focusin', close);
    return () => {
      document.removeEventListener('pointerdown', close);
      document.removeEventListener('focusin', close);
    };
  }, []);
  const closeAndReturn = () => {
    if (!box.current) return;
    box.current.open = false;
    box.current.querySelector('summary')?.focus();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== 'Escape' || !box.current?.open) return;
    event.preventDefault();
    closeAndReturn();
  };
  return (
    <details class="menu" ref={box} onKeyDown={onKeyDown}>
      <summary class="button small" aria-label={title}>
        {label}
      </summary>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the clicks are those of the buttons inside */}
      {/* biome-ignore lint/a11y/useKeyWithClickEvents: the buttons inside take the keys */}
      <div class="menu-items" onClick={closeAndReturn}>
        {children}
      </div>
    </details>
  );
}
