# chart.gnuplot: throughput, latency, and how the figures stand to what is
# wanted. Set from outside: out, the file; dir, where the data are; heading.

set terminal svg size 1180,1000 font "Helvetica,13" background "#ffffff"
set output out
set encoding utf8
set datafile separator "\t"
set multiplot title heading font ",16"
set border 3 lc rgb "#444444"
set tics nomirror textcolor rgb "#222222"
set grid ytics lc rgb "#dddddd"

filled(file) = int(real(system("test -s ".dir."/".file." && echo 1 || echo 0")))

# ---- voids per second ----
if (filled("chart.throughput")) {
  set origin 0, 0.53
  set size 0.5, 0.42
  set title "Throughput: voids per second (more is better)"
  set ylabel "voids per second"
  set style data histograms
  set style histogram clustered gap 1
  set style fill solid 0.9 border lc rgb "#ffffff"
  set boxwidth 0.95
  set key top left font ",11" reverse Left
  set yrange [0:*]
  array shade[6] = ["#bdbdbd", "#f4a261", "#c1666b", "#1d6fa5", "#0b4f6c", "#052f42"]
  plot for [k = 2:5] dir."/chart.throughput" using k:xtic(1) title columnheader(k) lc rgb shade[k - 1]
}

# ---- milliseconds ----
if (filled("chart.latency")) {
  set origin 0.5, 0.53
  set size 0.5, 0.42
  set title "Latency at 20 requests a second (less is better)"
  set ylabel "milliseconds, logarithmic"
  set xlabel "percentile"
  set logscale y
  set yrange [*:*]
  set format y "%g"
  set style data linespoints
  set key top left font ",11" reverse Left
  plot dir."/chart.latency" using 2:xtic(1) title columnheader(2) lw 2 pt 7 ps 0.6 lc rgb "#888888", \
       "" using 3 title columnheader(3) lw 2 pt 7 ps 0.6 lc rgb "#f4a261", \
       "" using 4 title columnheader(4) lw 2 pt 7 ps 0.6 lc rgb "#1d6fa5"
  unset logscale y
  unset xlabel
}

# ---- what is wanted ----
set origin 0, 0
set size 1, 0.51
set title "Targets: the bar of one that holds reaches the line (at the right: measured, wanted)"
unset ylabel
set xlabel "times what is wanted (cut at 2.5)"
set format x "%g"
set lmargin at screen 0.42
set rmargin at screen 0.97
set xrange [0:3.15]
set xtics 0, 0.5, 2.5
stats dir."/chart.targets" using 2 nooutput
rows = STATS_records
set yrange [rows - 0.4:-0.6]
unset grid
set grid xtics lc rgb "#dddddd"
set style fill solid 0.9 noborder
unset key
set arrow 1 from 1, -0.6 to 1, rows - 0.4 nohead lw 2 lc rgb "#222222" front
cut(x) = x > 2.5 ? 2.5 : x
plot dir."/chart.targets" using (cut($2) / 2):0:(0):(cut($2)):($0 - 0.34):($0 + 0.34):($4 > 0 ? 0x1d6fa5 : 0xc1666b):ytic(1) with boxxyerror lc rgb variable, \
     "" using (2.55):0:3 with labels left font ",13" textcolor rgb "#222222"
unset multiplot
