"""Words that carry the form of a question or sentence, not its subject.

Queries drop them (see `kb.text.terms`); indexes keep everything. Chinese entries are whole words as
the segmenter yields them, simplified and traditional.
"""

_ENGLISH = """
a about after all also am an and any are as at be because been before being between both but by
can cannot cant could describe did didnt do does doesnt doing done dont during each either else
ever every explain for from further get gets getting give given go goes going had happen
happened happens has have having he hence her here hers herself him himself his how however i
if in into is isnt it its itself just know let lets like many may me might mine more most much
must my myself no nor not of off often on once one only onto or other others ought our ours
ourselves out over own please same shall she should since so some such tell than that the their
theirs them themselves then there therefore these they this those though through thus to too
under until up upon us used using very via want was we were what whatever whats when where
whether which while who whoever whom whose why will with within without would yet you your
yours yourself
"""

_CHINESE = """
的 地 得 了 着 過 过 吗 嗎 呢 吧 啊 呀 嘛 么 麼 之 其 此 该 該 这 這 那 这个 這個 那个 那個
这些 這些 那些 这里 這裡 那里 那裡 这样 這樣 那样 那樣 这种 這種 那种 那種 是 为 為 在 于 於 与
與 和 及 或 并 並 而 且 但 却 卻 又 也 都 还 還 就 才 再 很 最 更 太 非常 以 以及 从 從 由 向
对 對 对于 對於 关于 關於 把 被 让 讓 给 給 跟 同 按 按照 根据 根據 如果 若 虽然 雖然 但是 因为
因為 因此 由于 由於 所以 然后 然後 而且 并且 並且 或者 我 你 您 他 她 它 我们 我們 你们 你們
他们 他們 她们 她們 它们 它們 咱们 自己 什么 什麼 什麽 甚么 甚麼 啥 谁 誰 哪 哪个 哪個 哪些
哪里 哪裡 哪儿 哪位 哪种 哪種 哪一 哪一个 哪家 怎么 怎麼 怎样 怎樣 怎么样 怎麼樣 怎么办 怎麼辦
如何 为什么 為什麼 为何 為何 为啥 何 何时 何時 何地 何处 何處 何种 何種 何人 几 幾 几个 幾個
多少 多久 多长 多長 多大 多高 多远 多遠 是否 有没有 有沒有 能否 可否 是不是 能不能 可以 能 能够
能夠 应该 應該 应当 應當 需要 必须 必須 要 会 會 可 有 没有 沒有 没 沒 不 不是 无 無 请 請 请问
請問 请教 請教 告诉 告訴 知道 想 想要 一下 一个 一個 一种 一種 一些 一 个 個 种 種 些 位 叫
叫做 称为 稱為 等 等等 时候 時候 什么样 什麼樣 什么时候 什麼時候 到底 究竟 大概 大约 大約 左右
分别 分別 主要 具体 具體 目前 现在 現在 曾经 曾經 曾 已经 已經 已 当时 當時 当 當 中 里 裡 时
時 只 及其 其中 其他 其它 所 所谓 所謂 则 則 即 便 来 來 去 到 用 使 使得 如 像 似 各 每 某
才能 进行 進行 属于 屬於 成为 成為
"""

# Words that do carry a meaning, but one that stands in many texts: a question may well use them
# for something that the documents call otherwise. Used as weights, never dropped.
_EVERYDAY_ENGLISH = """
able accept access according account across act action active activity actual actually add
addition address affect age ago agree aim air allow allowed almost alone along already always
amount animal announce another answer anyone anything appear apply approach appropriate
approximate approximately area argue arm arrange arrive article ask associate attempt attend
author available average avoid away back bad bank base based basic bear beat become begin
behind believe belong best better big bit black blood blue board body book born bottom box
break bring brother build building business buy call called car care carry case cause center
central centre century certain certainly chance change character charge check child children
choice choose city claim class clean clear clearly close cold collect college color colour
combine come common community company compare complete concern condition connect consider
consist contact contain continue control copy correct cost count country couple course cover
create current currently customer cut daily damage danger dark data date day dead deal death
decide decision decrease deep define definition degree deliver depend design detail determine
develop development did difference different difficult direct direction discover discuss
distance divide document door double down draw drive drop dry due early earn easily east easy
eat education effect effective effort eight either employ employee enable end enough ensure
enter entire equal equipment especially establish even event eventually everyone everything
exact exactly example except exist expect expensive experience extra eye face fact fail fall
family famous far fast father fear feel few field fight figure file fill final finally find
fine finish fire first fit five fix floor follow following food foot force foreign form former
found four free friend front full function fund future gain game general generally girl given
good government great green ground group grow growth guess guide half hand handle hang happen
happy hard head health hear heart heat heavy height help high higher highest history hit hold
holiday home hope hot hour house hundred idea identify image important improve inch include
including income increase indicate individual industry influence information inside instead
interest international introduce involve issue item job join keep key kind kinds king land
language large larger largest last late later latest law lead leader learn least leave left
legal length less letter level lie life light limit line link list listen little live local
locate located location long longer look lose lost lot loud love low lower lowest machine made
main mainly maintain major make man manage manager many mark market material matter maximum
mean meaning measure meet member mention message method middle mile million mind minimum minute
miss mistake model modern moment money month morning mother move movie music name named
national natural nature near nearby nearly necessary need never new news next night nine none
normal normally north note nothing notice number object obtain occur offer office official
often old open operate operation opinion opportunity option order organization origin original
originally outside overall owner page paid paper parent part particular particularly party pass
past pay peak people per percent percentage perform performance perhaps period permit person
phone photo pick picture piece place plan plant play player please plus point police policy
political poor popular population position possible power practice prefer prepare present
president press pretty prevent previous price primary private probably problem procedure
process produce product production program project proper properly property protect prove
provide public publish pull purpose push put quality quantity question quick quickly quite
range rate rather reach read ready real reason receive recent recently recognize recommend
record red reduce refer reference region regular relate relation relationship release remain
remember remove repeat replace reply report represent request require required research
response rest result return right rise risk river road role room rule run safe sale sales save
say school science score sea season seat second section see seem select sell send sense
separate series serious serve service set seven several short shot show side sign significant
similar simple simply since single sister sit site situation six size skill sleep slow slowly
small smaller social society solution someone something sometimes soon sort sound source south
space speak special specific speed spend staff stage stand standard start state statement
station stay step still stop story street strong structure student study style subject succeed
success successful suggest suitable sum summer supply support sure surface system table take
talk task teach teacher team technology temperature ten term test text thank thing think third
thousand three throughout throw time title today together top total toward town track trade
traditional train travel treat treatment tree trip trouble true truth try turn twice two type
typical typically understand unit united university upper usage useful usual usually valid
value various version view visit voice wait walk wall war warm watch water way wear weather
website week weight went west wet white whole wide width wife win window winter wish woman
women wonder word work worker works world worth write written wrong year yes yesterday young
"""

ENGLISH = frozenset(_ENGLISH.split())
EVERYDAY_ENGLISH = frozenset(_EVERYDAY_ENGLISH.split())
CHINESE = frozenset(_CHINESE.split())
