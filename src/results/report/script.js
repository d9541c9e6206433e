"use strict";
// The values under the pointer, of every curve of a chart. Charts are complete without it.
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const plot = figure.querySelector(".plot");
  const { x, series, label } = JSON.parse(figure.querySelector("script").textContent);
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  plot.append(tip);
  const cursor = plot.querySelector(".cursor");
  const nearest = (points, at) =>
    points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best), points[0]);
  const leave = () => { tip.hidden = true; cursor.style.visibility = "hidden"; };
  const move = (event) => {
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const at = x[0] + share * (x[1] - x[0]);
    const found = series.map((s) => nearest(s.points, at));
    const close = found.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best - at) ? point[0] : best), found[0][0]);
    tip.replaceChildren(document.createTextNode(`${label} ${close}`));
    series.forEach((s, i) => {
      const last = s.points[s.points.length - 1][0];
      if (close > last || close < s.points[0][0]) return;
      const line = document.createElement("div"), dot = document.createElement("span");
      dot.className = "dot";
      dot.style.setProperty("--run", `var(--r${s.color})`);
      line.append(dot, `${s.name}: ${found[i][1]}`);
      tip.append(line);
    });
    const place = (close - x[0]) / (x[1] - x[0] || 1);
    cursor.setAttribute("x1", place * 1000);
    cursor.setAttribute("x2", place * 1000);
    cursor.style.visibility = "visible";
    tip.hidden = false;
    const left = place * box.width;
    tip.style.left = left < box.width / 2 ? `${left + 10}px` : "auto";
    tip.style.right = left < box.width / 2 ? "auto" : `${box.width - left + 10}px`;
  };
  plot.addEventListener("pointermove", move);
  plot.addEventListener("pointerdown", move);
  plot.addEventListener("pointerleave", leave);
}
