/**
 * A page saved as one file (tb_bnlens/export.py): what the routes would answer is in the page itself. It is base64 of
 * gzip of: uint32 LE length of the index; the index, JSON; the bodies one after another.
 */
const ID = 'bn-lens-stored';

interface Entry {
  /** The route and the values of its parameters, in their order. */
  key: string[];
  at: number;
  size: number;
}

function element(): HTMLElement | null {
  return document.getElementById(ID);
}

/** Whether this page is such a file. */
export function isStored(): boolean {
  return element() !== null;
}

/** When the file was made, in seconds since 1970; null for a page that a server sends. */
export function storedAt(): number | null {
  const at = element()?.dataset.at;
  return at === undefined ? null : Number(at);
}

/** The part of an address that the page opens with; empty for a page that a server sends. */
export function storedLink(): string {
  return element()?.dataset.open ?? '';
}

let unpacked: Promise<Map<string, Uint8Array<ArrayBuffer>>> | null = null;

/** What a route answers, a 404 for what the file does not hold. */
export async function storedReply(path: string): Promise<Response> {
  unpacked ??= unpack(element()?.textContent ?? '');
  const [route, search] = path.split('?');
  const key = JSON.stringify([route, ...new URLSearchParams(search).values()]);
  const body = (await unpacked).get(key);
  if (body) return new Response(body);
  const error = 'This saved page does not hold it. The run’s own record does: open it in TensorBoard.';
  return new Response(JSON.stringify({ error }), { status: 404 });
}

async function unpack(text: string): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const index = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))) as Entry[];
  return new Map(
    index.map(({ key, at, size }) => [JSON.stringify(key), new Uint8Array(buffer, 4 + length + at, size)]),
  );
}
