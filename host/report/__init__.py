"""One report of everything that was found: `tutelage report`.

content.py    sections of text, tables and plots, in no form yet
sections.py   which sections there are, and the files that they are made from
study_section.py        the QKD study and its ablation
comparison_section.py   CPU, GPU and DPU, and the thesis's figures beside them
layers_section.py       where the DPU's time goes
trace_section.py        the power of a measured run over time
prediction_section.py   predicted against published
html_page.py, markdown.py   the two forms that it comes in
"""
