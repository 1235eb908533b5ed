"""One report of everything that was found: `tutelage report`.

content.py      what a report is made of: sections of text, tables and plots
sections.py     which sections there are, and the files that they are made from
study.py        the QKD study and its ablation
comparison.py   CPU, GPU and DPU, and the thesis's figures beside them
layers.py       where the DPU's time goes
trace.py        the power of a measured run over time
prediction.py   predicted against published
html.py, markdown.py   the two forms that it comes in
"""
