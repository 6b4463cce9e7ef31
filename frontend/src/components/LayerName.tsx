import { Middle } from './Middle';

/**
 * A layer's path. Folders that all layers share are not shown, though read out; of the others, where there is no room,
 * the folders give way, since the last part tells layers apart.
 */
export function LayerName({ name, shared = '' }: { name: string; shared?: string }) {
  const cut = name.lastIndexOf('/') + 1;
  return (
    <span class="layer-name" title={name}>
      {shared && <span class="unseen">{shared}</span>}
      {cut > shared.length && <span class="folders">{name.slice(shared.length, cut)}</span>}
      <span class="leaf">
        <Middle text={name.slice(cut)} />
      </span>
    </span>
  );
}
