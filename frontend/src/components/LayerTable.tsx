import { useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { routes } from '../api';
import { plural } from '../format';
import { column } from '../frame';
import { useResource, useView } from '../hooks';
import { blockRows, blocksOf } from '../models/blocks';
import { distanceOrigin } from '../models/losses';
import {
  type SortKey as Column,
  depth,
  nameFilter,
  type Sort,
  sharedFolders,
  sortLayers,
  stateName,
  visibleRows,
} from '../models/table';
import { view } from '../view';
import type { LayerReport, Overview } from '../wire';
import { tooltip, type WordKey } from '../words';
import { BlockRow } from './BlockRow';
import { LayerRow } from './LayerRow';
import { Panel } from './Panel';

export const ROW = 28;

const COLUMNS: { key: Column; label: string; width: string; word?: WordKey; class?: string }[] = [
  { key: 'order', label: '#', width: '40px' },
  { key: 'name', label: 'layer', width: 'minmax(110px, 1fr)' },
  { key: 'state', label: 'state', width: '96px', word: 'state' },
  { key: 'distance', label: 'distance (sd)', width: '124px', word: 'distance', class: 'right' },
  { key: 'steps', label: 'to converge', width: '82px', word: 'steps', class: 'right' },
  { key: 'attribution', label: 'loss alone', width: '76px', word: 'attribution', class: 'right' },
  { key: 'findings', label: 'findings', width: '62px' },
];

/** A column that would say the same of every layer takes no room. */
function columnsOf(layers: readonly LayerReport[]): typeof COLUMNS {
  const differ = layers.some(({ state }) => state !== layers[0].state);
  const alone = layers.some(({ attribution }) => attribution !== null);
  return COLUMNS.filter(({ key }) => (key !== 'state' || differ) && (key !== 'attribution' || alone));
}

export function LayerTable({ overview, layer }: { overview: Overview; layer: number | null }) {
  const { layers, run } = overview;
  const series = useResource(useMemo(() => routes.series(run, 'distance_rms'), [run]));
  const rule = useView((v) => v.finding);
  const [pattern, setPattern] = useState('');
  const [sort, setSort] = useState<Sort>({ key: 'order', descending: false });
  const [folded, setFolded] = useState<ReadonlySet<string>>(new Set());
  const [scroll, setScroll] = useState({ top: 0, height: 460 });
  const box = useRef<HTMLDivElement>(null);

  const finding = overview.findings.find((f) => f.rule === rule);
  const lit = useMemo(
    () => (finding?.layer_indices.length ? new Set(finding.layer_indices) : null),
    [finding],
  );
  const shared = useMemo(() => sharedFolders(layers.map(({ name }) => name)), [layers]);
  const filter = useMemo(() => nameFilter(pattern), [pattern]);
  const found = useMemo(
    () =>
      sortLayers(
        layers.filter((l) => filter.test(l.name)),
        sort,
      ),
    [layers, filter, sort],
  );
  const blocks = useMemo(() => {
    const names = blocksOf(layers.map(({ name }) => name));
    return new Map(layers.map(({ index }, i) => [index, names[i]]));
  }, [layers]);
  // Layers of a block follow each other in the order of execution only.
  const rows = useMemo(
    () => blockRows(found, sort.key === 'order' ? blocks : new Map(), folded),
    [found, blocks, folded, sort],
  );
  const heads = rows.filter((row) => row.kind === 'block');
  const columns = useMemo(() => columnsOf(layers), [layers]);
  const shown = useMemo(() => new Set(columns.map(({ key }) => key)), [columns]);
  const { first, end } = visibleRows(rows.length, scroll.top, scroll.height, ROW);
  const at = rows.findIndex((row) => row.kind === 'layer' && row.layer.index === layer);

  const measure = () => {
    if (box.current) setScroll({ top: box.current.scrollTop, height: box.current.clientHeight });
  };
  useLayoutEffect(() => {
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(box.current as HTMLDivElement);
    return () => observer.disconnect();
  }, []);
  // Scrolls only when another layer is chosen: a live update does not move the page.
  useLayoutEffect(() => {
    const body = box.current;
    if (!body || at < 0) return;
    const top = at * ROW;
    if (top < body.scrollTop) body.scrollTop = top;
    else if (top + 2 * ROW > body.scrollTop + body.clientHeight)
      body.scrollTop = top + 2 * ROW - body.clientHeight;
  }, [layer]);

  // The nearest layer at or beyond a row, in the direction of travel; heads of blocks are passed over.
  const choose = (to: number) => {
    const forward = to >= at;
    for (let i = clamp(to, rows.length); i >= 0 && i < rows.length; i += forward ? 1 : -1) {
      const row = rows[i];
      if (row.kind === 'layer') return view.set({ layer: row.layer.index });
    }
  };
  const fold = (block: string) => {
    const next = new Set(folded);
    if (!next.delete(block)) next.add(block);
    setFolded(next);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(scroll.height / ROW) - 2);
    const to: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: rows.length - 1,
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    choose(to[event.key]);
  };
  const sortBy = (key: Column) =>
    setSort({ key, descending: sort.key === key ? !sort.descending : key !== 'order' && key !== 'name' });

  return (
    <Panel
      title="Layers"
      class="layer-panel"
      data={() => ({ name: `${run}-layers`, header: CSV_HEADER, rows: found.map(csvRow) })}
      tools={
        <>
          {heads.length > 0 && (
            <button
              type="button"
              class="button small"
              onClick={() => setFolded(folded.size ? new Set() : new Set(heads.map(({ block }) => block)))}
            >
              {folded.size ? 'Unfold blocks' : 'Fold blocks'}
            </button>
          )}
          <input
            type="search"
            class={`search ${filter.valid ? '' : 'invalid'}`}
            placeholder="Filter by regex"
            aria-label="Filter layers by a regular expression over their names"
            value={pattern}
            onInput={(e) => setPattern(e.currentTarget.value)}
          />
        </>
      }
    >
      <p class="hint" role="status">
        {found.length === layers.length
          ? plural(layers.length, 'layer')
          : `${found.length} of ${plural(layers.length, 'layer')}`}
        {layers.length > 0 && !shown.has('state') && `, all ${stateName(layers[0].state)}`}
        {shared && ` · in ${shared}`}
        {!filter.valid && ' · not a supported expression; searching for the text'}
        {` · distance: ${distanceOrigin(overview)}; its line: each record`}
        {lit && ` · ${plural(lit.size, 'layer')} of the finding highlighted`}
      </p>
      <div
        class="grid"
        ref={box}
        role="grid"
        aria-label="BatchNorm layers"
        aria-rowcount={rows.length + 1}
        aria-activedescendant={at >= first && at < end ? `layer-row-${layer}` : undefined}
        tabIndex={0}
        style={{ '--columns': columns.map(({ width }) => width).join(' ') }}
        onScroll={measure}
        onKeyDown={onKeyDown}
      >
        <div class="grid-head" role="row" aria-rowindex={1}>
          {columns.map(({ key, label, word, class: name }) => (
            <div
              key={key}
              role="columnheader"
              class={`cell ${key} ${name ?? ''}`}
              aria-sort={sort.key === key ? (sort.descending ? 'descending' : 'ascending') : 'none'}
            >
              <button type="button" data-tip={word && tooltip(word)} onClick={() => sortBy(key)}>
                {label}
                <span class="sort" aria-hidden="true">
                  {sort.key === key ? (sort.descending ? '▼' : '▲') : ''}
                </span>
              </button>
            </div>
          ))}
        </div>
        <div class="grid-body" role="rowgroup" style={{ height: `${rows.length * ROW}px` }}>
          {rows.slice(first, end).map((row, i) => {
            const place = {
              top: (first + i) * ROW,
              place: first + i + 2,
              findings: overview.findings,
              shared,
              shown,
            };
            if (row.kind === 'block')
              return (
                <BlockRow
                  key={`${row.block} ${row.layers[0].index}`}
                  {...row}
                  {...place}
                  onToggle={() => fold(row.block)}
                />
              );
            const { index } = row.layer;
            return (
              <LayerRow
                key={index}
                {...place}
                layer={row.layer}
                inBlock={row.block !== null}
                chosen={index === layer}
                lit={lit ? lit.has(index) : null}
                series={column(series.value, 'values')}
                stride={layers.length}
              />
            );
          })}
        </div>
        {!rows.length && <p class="nothing">No layer matches the filter.</p>}
      </div>
    </Panel>
  );
}

function clamp(place: number, size: number): number {
  return Math.min(Math.max(place, 0), size - 1);
}

const CSV_HEADER = [
  'index',
  'order',
  'name',
  'state',
  'kind',
  'channels',
  'momentum',
  'distance_sd',
  'steps_to_converge',
  'steps_to_converge_worst',
  'attribution_loss',
  'drift_sd_per_step',
  'noise_mean_sd',
  'findings',
];

function csvRow(l: LayerReport) {
  return [
    l.index,
    depth(l),
    l.name,
    l.state,
    l.kind,
    l.channels,
    l.momentum,
    l.distance,
    l.steps_to_converge,
    l.steps_to_converge_worst,
    l.attribution,
    l.drift,
    l.noise_mean,
    l.findings.join(' '),
  ];
}
