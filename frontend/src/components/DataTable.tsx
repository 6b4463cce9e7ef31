import { number } from '../format';
import type { ChartData } from './Panel';

const SHOWN = 200;

/** The text equivalent of a canvas. Long data is thinned out evenly; its CSV holds all of it. */
export function DataTable({ title, data }: { title: string; data: ChartData }) {
  const stride = Math.ceil(data.rows.length / SHOWN) || 1;
  const rows = data.rows.filter((_, i) => i % stride === 0 || i === data.rows.length - 1);
  return (
    <div class="data-table" tabIndex={0} role="region" aria-label={`${title}, as a table`}>
      <table>
        <caption>
          {title}
          {stride > 1 && `: every ${stride}th of ${data.rows.length} rows; the CSV has all`}
        </caption>
        <thead>
          <tr>
            {data.header.map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, i) => (
            <tr key={i}>
              {row.map((value, c) => (
                <td key={data.header[c]}>{typeof value === 'string' ? value : number(value)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
