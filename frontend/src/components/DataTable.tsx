import { count, number } from '../format';
import type { ChartData } from './Panel';

const SHOWN = 200;
const COLUMNS = 60;

/** The text equivalent of a canvas. Of long data it has evenly spread rows; the CSV has all. */
export function DataTable({ title, data }: { title: string; data: ChartData }) {
  const stride = Math.ceil(data.rows.length / SHOWN) || 1;
  const rows = data.rows.filter((_, i) => i % stride === 0 || i === data.rows.length - 1);
  const header = data.header.slice(0, COLUMNS);
  const left = [
    stride > 1 && `every ${stride}th of ${count(data.rows.length)} rows`,
    data.header.length > COLUMNS && `the first ${COLUMNS} of ${count(data.header.length)} columns`,
  ].filter(Boolean);
  return (
    <div class="data-table" tabIndex={0} role="region" aria-label={`${title}, as a table`}>
      <table>
        <caption>
          {title}
          {left.length > 0 && `: ${left.join(', ')}; the CSV has all`}
        </caption>
        <thead>
          <tr>
            {header.map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, i) => (
            <tr key={i}>
              {row.slice(0, COLUMNS).map((value, c) => (
                <td key={header[c]}>{typeof value === 'string' ? value : number(value)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
