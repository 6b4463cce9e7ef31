import { afterEach, describe, expect, it, vi } from 'vitest';
import { poll, Resource, refresh, routes } from '../src/api';
import { decodeFrame } from '../src/frame';
import { encodeFrame } from './samples';

function answer(body: unknown, status = 200, etag = '"a"'): Response {
  const text = status === 304 ? null : JSON.stringify(body);
  return new Response(text, { status, headers: { ETag: etag } });
}

const json = (reply: Response) => reply.json() as Promise<{ n: number }>;

afterEach(() => vi.unstubAllGlobals());

describe('frame', () => {
  it('decodes both widths, with padding after an odd number of floats', () => {
    const frame = decodeFrame(
      encodeFrame({
        steps: { data: [1, 2, 3], dtype: 'f8' },
        v: { data: [0.5, 1, 2] },
        w: { data: [9], shape: [1, 1] },
      }),
    );
    expect([...(frame.get('steps')?.data ?? [])]).toEqual([1, 2, 3]);
    expect([...(frame.get('v')?.data ?? [])]).toEqual([0.5, 1, 2]);
    expect(frame.get('w')).toMatchObject({ shape: [1, 1] });
  });
  it('says what is wrong with a cut one', () => {
    const whole = encodeFrame({ v: { data: [1, 2, 3, 4] } });
    expect(() => decodeFrame(whole.slice(0, whole.byteLength - 8))).toThrow('ends inside "v"');
    expect(() => decodeFrame(new ArrayBuffer(2))).toThrow('at least 4 bytes');
  });
});

describe('poll', () => {
  it('asks only while it is wanted', async () => {
    vi.useFakeTimers();
    let wanted = false;
    const asked = vi.fn(() => wanted);
    const stop = poll(5, asked);
    await vi.advanceTimersByTimeAsync(11_000);
    expect(asked).toHaveBeenCalledTimes(2);
    wanted = true;
    await vi.advanceTimersByTimeAsync(5_000);
    stop();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(asked).toHaveBeenCalledTimes(3);
    vi.useRealTimers();
  });
});

describe('a route that fails', () => {
  it('is requested less and less often, at once on demand, and as before when it answers', async () => {
    vi.useFakeTimers();
    const fetch = vi.fn().mockImplementation(async () => answer({ error: 'no' }, 404));
    vi.stubGlobal('fetch', fetch);
    const resource = routes.overview('broken');
    const forget = resource.subscribe(() => {});
    const stop = poll(5, () => true);
    await vi.advanceTimersByTimeAsync(1000);
    expect(resource.snapshot.retryAt).toBe(Date.now() - 1000 + 10_000);
    await vi.advanceTimersByTimeAsync(600_000);
    // Every 5 s that were 120 requests.
    const asked = fetch.mock.calls.length;
    expect(asked).toBeGreaterThan(4);
    expect(asked).toBeLessThan(10);
    await refresh();
    expect(fetch).toHaveBeenCalledTimes(asked + 1);
    fetch.mockImplementation(async () => answer({}));
    await refresh();
    expect(resource.snapshot.retryAt).toBe(0);
    await vi.advanceTimersByTimeAsync(11_000);
    expect(fetch).toHaveBeenCalledTimes(asked + 4);
    stop();
    forget();
    vi.useRealTimers();
  });
  it('is requested again soon where TensorBoard was only stopped', async () => {
    vi.stubGlobal('fetch', vi.fn().mockRejectedValue(new TypeError('network')));
    const resource = new Resource('runs', json);
    for (let i = 0; i < 8; i++) await resource.load();
    expect(resource.snapshot.retryAt - Date.now()).toBeLessThanOrEqual(20_000);
  });
});

describe('resource', () => {
  it('asks with the ETag and keeps the same value when nothing changed', async () => {
    const fetch = vi
      .fn()
      .mockResolvedValueOnce(answer({ n: 1 }))
      .mockResolvedValueOnce(answer(null, 304));
    vi.stubGlobal('fetch', fetch);
    const resource = new Resource('runs', json);
    await resource.load();
    const first = resource.snapshot.value;
    await resource.load();
    expect(fetch.mock.calls[1][1].headers).toEqual({ 'If-None-Match': '"a"' });
    expect(resource.snapshot.value).toBe(first);
  });
  it('keeps the last value through a failure and says what failed', async () => {
    const fetch = vi
      .fn()
      .mockResolvedValueOnce(answer({ n: 1 }))
      .mockResolvedValueOnce(answer({ error: 'Choose another run.' }, 404))
      .mockRejectedValueOnce(new TypeError('network'));
    vi.stubGlobal('fetch', fetch);
    const resource = new Resource('runs', json);
    await resource.load();
    await resource.load();
    expect(resource.snapshot).toMatchObject({ value: { n: 1 }, error: 'Choose another run.' });
    await resource.load();
    expect(resource.snapshot.error).toContain('does not answer');
  });
  it('does not ask twice at once', async () => {
    const fetch = vi.fn().mockResolvedValue(answer({ n: 1 }));
    vi.stubGlobal('fetch', fetch);
    const resource = new Resource('runs', json);
    await Promise.all([resource.load(), resource.load()]);
    expect(fetch).toHaveBeenCalledTimes(1);
  });
});
