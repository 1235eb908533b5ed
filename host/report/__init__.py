"""One report of a model and its runs: `tutelage report`.

content.py    sections of text, figures, tables and plots, in no form yet
sections.py   which sections there are, in their order
subject.py    the model and the training run that a report is about
found.py      its measured runs and its comparison
training_run.py         the files of a training run
headline_section.py     the figures that a reader looks for first
training_section.py     settings and curves
classes_section.py      accuracy by class and the confusion matrix
cost_section.py         what it costs on a board, with the DPU's engines over time
trace_section.py        a measured run, with its power over time
comparison_section.py   CPU, GPU and DPU, and the thesis's figures beside them
study_section.py        the QKD study and its ablation
prediction_section.py   predicted against published
html_page.py, page_style.py, markdown.py   the two forms that it comes in
errors.py     files that cannot be used
"""
